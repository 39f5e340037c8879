#pragma once

#include "core/cuda/interpolation.h"
#include "core/cuda/strided.h"

namespace fastbts {

struct ResampleAffineSettings {
  double map[3][4];
  bool nearest;
  float outside;
};

/// Where a position on an axis of n voxels takes its value from; it is between the outer faces.
FASTBTS_DEVICE Tap tap_at(double position, int n, bool nearest) {
  const double shifted = nearest ? position + 0.5 : position;
  if (shifted <= 0) return {0, 0, 0.0F};
  if (shifted >= n - 1) return {n - 1, n - 1, 0.0F};
  const int low = static_cast<int>(shifted);
  return nearest ? Tap{low, low, 0.0F} : Tap{low, low + 1, static_cast<float>(shifted - low)};
}

/// Trilinear value of channel c between eight voxels. The loops are not unrolled: eight loads of a
/// dozen types at once would need most registers.
FASTBTS_DEVICE float sample(const AnyStrided<4>& tensor, std::int64_t c, const Tap& d, const Tap& h,
                            const Tap& w) {
  float left = 0, value = 0;
#pragma unroll 1
  for (int x = w.low; x <= w.high; ++x) {
    float near = 0, row = 0;
#pragma unroll 1
    for (int y = h.low; y <= h.high; ++y) {
      float top = 0, column = 0;
#pragma unroll 1
      for (int z = d.low; z <= d.high; ++z) {
        const auto voxel =
            static_cast<float>(load(tensor.data, tensor.dtype, tensor.offset(c, z, y, x)));
        column = z == d.low ? voxel : lerp(top, voxel, d.part);
        top = voxel;
      }
      row = y == h.low ? column : lerp(near, column, h.part);
      near = column;
    }
    value = x == w.low ? row : lerp(left, row, w.part);
    left = row;
  }
  return value;
}

/// One thread per voxel of a row (d, h) of out, for all channels.
FASTBTS_KERNEL void resample_affine_kernel(AnyStrided<4> tensor, ResampleAffineSettings settings,
                                           AnyStrided<4, void> out, std::uint32_t n_rows) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, out.shape + 1).index;
    for (std::int64_t w = threadIdx.x; w < out.shape[3]; w += blockDim.x) {
      Tap taps[3];
      bool inside = true;
      for (int axis = 0; axis < 3; ++axis) {
        const double* m = settings.map[axis];
        const double start = m[0] * static_cast<double>(d) + m[1] * static_cast<double>(h) + m[3];
        const double position = start + m[2] * static_cast<double>(w);
        const int n = static_cast<int>(tensor.shape[axis + 1]);
        inside = inside && position >= -0.5 && position <= n - 0.5;
        taps[axis] = inside ? tap_at(position, n, settings.nearest) : Tap{0, 0, 0.0F};
      }
      for (std::int64_t c = 0; c < out.shape[0]; ++c) {
        const float value =
            inside ? sample(tensor, c, taps[0], taps[1], taps[2]) : settings.outside;
        if (out.dtype == DType::kUint8) {
          static_cast<std::uint8_t*>(out.data)[out.offset(c, d, h, w)] =
              static_cast<std::uint8_t>(value);
        } else {
          store(out.data, out.dtype, out.offset(c, d, h, w), value);
        }
      }
    }
  }
}

}  // namespace fastbts
