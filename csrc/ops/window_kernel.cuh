#pragma once

#include "core/cuda/strided.h"

namespace fastbts {

FASTBTS_DEVICE bool is_inside(std::int64_t i, std::int64_t n) { return 0 <= i && i < n; }

/// One thread per voxel of out, of which each row (b, m, d, h) is cut from one row of the tensor.
template <typename T>
FASTBTS_KERNEL void window_kernel(Strided<const T, 4> tensor,
                                  Strided<const std::int32_t, 2> origins, AnyStrided<5, void> out,
                                  std::uint32_t n_rows) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [b, m, d, h] = Row<4>(row, out.shape).index;
    const std::int64_t from_d = d + origins.at(b, 0), from_h = h + origins.at(b, 1),
                       origin = origins.at(b, 2);
    const bool crosses = is_inside(from_d, tensor.shape[1]) && is_inside(from_h, tensor.shape[2]);
    for (std::int64_t w = threadIdx.x; w < out.shape[4]; w += blockDim.x) {
      const bool inside = crosses && is_inside(origin + w, tensor.shape[3]);
      const float value = inside ? to_float(tensor.at(m, from_d, from_h, origin + w)) : 0.0F;
      store(out.data, out.dtype, out.offset(b, m, d, h, w), value);
    }
  }
}

}  // namespace fastbts
