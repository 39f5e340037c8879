#pragma once

#include "core/cuda/strided.h"

namespace fastbts {

/// A row is all voxels and channels along W; affine is null for a copy.
template <typename In, typename Out>
FASTBTS_KERNEL void activate_kernel(Strided<const In, 5> x, const float* affine,
                                    Strided<Out, 5> out) {
  const auto n_c = static_cast<unsigned>(x.shape[4]),
             n = static_cast<unsigned>(x.shape[3] * x.shape[4]),
             n_rows = static_cast<unsigned>(x.shape[0] * x.shape[1] * x.shape[2]);
  for (unsigned row = first_row(); row < n_rows; row += row_step()) {
    const Row<3> at(row, x.shape);
    const auto [b, d, h] = at.index;
    const float* const scale = affine ? affine + b * 2 * n_c : nullptr;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
      const unsigned w = i / n_c, c = i % n_c;
      float value = to_float(x.at(b, d, h, w, c));
      if (scale) {
        value = value * scale[c] + scale[n_c + c];
        value = value > 0.0F ? value : 0.01F * value;
      }
      out.at(b, d, h, w, c) = from_float<Out>(value);
    }
  }
}

}  // namespace fastbts
