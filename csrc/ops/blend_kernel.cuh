#pragma once

#include "core/cuda/strided.h"

namespace fastbts {

struct BlendWeights {
  Strided<const float, 2> d, h, w;
};

/// What window b adds to a voxel of the volume; products in the order of the CPU's, for the same
/// bits.
template <typename T>
FASTBTS_DEVICE float blend_term(const Strided<const T, 5>& logits,
                                const Strided<const std::int32_t, 2>& origins,
                                const BlendWeights& weights, std::int64_t b, std::int64_t k,
                                std::int64_t d, std::int64_t h, std::int64_t w) {
  const std::int64_t p = d - origins.at(b, 0), q = h - origins.at(b, 1), r = w - origins.at(b, 2);
  const bool covers = 0 <= p && p < logits.shape[2] && 0 <= q && q < logits.shape[3] && 0 <= r &&
                      r < logits.shape[4];
  if (!covers) return 0;
  return weights.d.at(b, p) * weights.h.at(b, q) * weights.w.at(b, r) *
         to_float(logits.at(b, k, p, q, r));
}

/// Gathers: one thread per voxel of total, of which each row is (k, d, h), adds the windows in the
/// order of b.
template <typename T>
FASTBTS_KERNEL void blend_kernel(Strided<const T, 5> logits, Strided<const std::int32_t, 2> origins,
                                 BlendWeights weights, Strided<float, 4> total,
                                 std::uint32_t n_rows) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [k, d, h] = Row<3>(row, total.shape).index;
    for (std::int64_t w = threadIdx.x; w < total.shape[3]; w += blockDim.x) {
      float sum = total.at(k, d, h, w);
      for (std::int64_t b = 0; b < logits.shape[0]; ++b)
        sum += blend_term(logits, origins, weights, b, k, d, h, w);
      total.at(k, d, h, w) = sum;
    }
  }
}

}  // namespace fastbts
