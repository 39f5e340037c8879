#pragma once

#include "core/cuda/interpolation.h"

namespace fastbts {

struct ResampleSizes {
  int n_c, from[3], to[3];
};

/// One thread per voxel of out; tensor (C, from) and out (C, to) are dense.
template <typename T>
FASTBTS_KERNEL void resample_kernel(const T* tensor, ResampleSizes sizes, T* out) {
  const auto [n_c, from, to] = sizes;
  const std::int64_t n_from = static_cast<std::int64_t>(from[0]) * from[1] * from[2];
  const std::int64_t n_out = static_cast<std::int64_t>(n_c) * to[0] * to[1] * to[2];
  for (std::int64_t i = thread_index(); i < n_out; i += n_threads_of_grid()) {
    const std::int64_t row = i / to[2], slice = row / to[1], c = slice / to[0];
    const Tap d = tap_of(static_cast<int>(slice % to[0]), from[0], to[0]);
    const Tap h = tap_of(static_cast<int>(row % to[1]), from[1], to[1]);
    const Tap w = tap_of(static_cast<int>(i % to[2]), from[2], to[2]);
    out[i] = from_float<T>(sample(tensor + c * n_from, from[1], from[2], d, h, w));
  }
}

}  // namespace fastbts
