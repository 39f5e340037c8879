#pragma once

#include "core/cuda/strided.h"

namespace fastbts {

/// present[b, m] = 1 where the first voxel of a block of a modality is not 0. Threads may write the
/// same value to one place.
FASTBTS_KERNEL void present_kernel(Strided<const float, 5> volume, int patch, float* present) {
  const std::int64_t n_d = volume.shape[2] / patch, n_h = volume.shape[3] / patch,
                     n_w = volume.shape[4] / patch;
  const std::int64_t n = volume.shape[0] * volume.shape[1] * n_d * n_h * n_w;
  for (std::int64_t i = thread_index(); i < n; i += n_threads_of_grid()) {
    const std::int64_t w = i % n_w, h = i / n_w % n_h, d = i / n_w / n_h % n_d,
                       image = i / n_w / n_h / n_d;
    const float value = volume.at(image / volume.shape[1], image % volume.shape[1], patch * d,
                                  patch * h, patch * w);
    if (value != 0.0F) present[image] = 1.0F;
  }
}

/// One thread per image.
FASTBTS_KERNEL void gain_kernel(const float* present, Strided<const float, 2> gate,
                                const float* bias, int n_images, float* gains) {
  const int image = static_cast<int>(thread_index()), n_m = static_cast<int>(gate.shape[0]);
  if (image >= n_images) return;
  const int m = image % n_m;
  float sum = bias[m];
  for (int n = 0; n < n_m; ++n) sum += gate.at(m, n) * present[image - m + n];
  gains[image] = 2.0F / (1.0F + expf(-sum));
}

/// One thread per element of out; gains is null without fusion.
FASTBTS_KERNEL void pack_kernel(Strided<const float, 5> volume, int patch, const float* gains,
                                const float* background, Strided<Half, 5> out) {
  const int n_children = patch * patch * patch, n_c = static_cast<int>(out.shape[4]);
  const std::int64_t n_w = out.shape[3], n_h = out.shape[2], n_d = out.shape[1];
  const std::int64_t n = out.shape[0] * n_d * n_h * n_w * n_c;
  for (std::int64_t i = thread_index(); i < n; i += n_threads_of_grid()) {
    const int c = static_cast<int>(i % n_c), m = c / n_children, child = c % n_children;
    const std::int64_t w = i / n_c % n_w, h = i / n_c / n_w % n_h, d = i / n_c / n_w / n_h % n_d,
                       b = i / n_c / n_w / n_h / n_d;
    float value = volume.at(b, m, patch * d + child / (patch * patch),
                            patch * h + child / patch % patch, patch * w + child % patch);
    if (gains) value = value == 0.0F ? background[m] : value * gains[b * volume.shape[1] + m];
    out.at(b, d, h, w, c) = from_float<Half>(value);
  }
}

}  // namespace fastbts
