#pragma once

#include "core/cuda/strided.h"

namespace fastbts {

/// One thread per element, channels fastest; affine is null for a copy.
template <typename In, typename Out>
FASTBTS_KERNEL void activate_kernel(Strided<const In, 5> x, const float* affine,
                                    Strided<Out, 5> out) {
  const std::int64_t n_c = x.shape[4], n_w = x.shape[3], n_h = x.shape[2], n_d = x.shape[1];
  const std::int64_t n = x.shape[0] * n_d * n_h * n_w * n_c;
  for (std::int64_t i = thread_index(); i < n; i += n_threads_of_grid()) {
    const std::int64_t c = i % n_c, w = i / n_c % n_w, h = i / n_c / n_w % n_h,
                       d = i / n_c / n_w / n_h % n_d, b = i / n_c / n_w / n_h / n_d;
    float value = to_float(x.at(b, d, h, w, c));
    if (affine) {
      value = value * affine[b * 2 * n_c + c] + affine[b * 2 * n_c + n_c + c];
      value = value > 0.0F ? value : 0.01F * value;
    }
    out.at(b, d, h, w, c) = from_float<Out>(value);
  }
}

}  // namespace fastbts
