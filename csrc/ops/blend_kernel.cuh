#pragma once

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"

/// Memory traffic (estimate): logits once; total twice for each 32 windows, where any covers it.
/// 8 windows of 128^3 in 160 x 192 x 152 voxels, 3 regions, float32: 314 MB, 105 us at 3.0 TB/s,
/// 73 us at 4.3 TB/s; expected 150 and 110 us. One launch.
namespace fastbts {

struct BlendWeights {
  Strided<const float, 2> d, h, w;
};

/// What a window adds to a row of the volume; of up to 32 windows at a time, each lane knows one.
struct RowOfWindow {
  bool covers;          // the row
  int origin;           // of the window along W
  float weight;         // of the row: product of those along D and H
  std::int64_t logits;  // elements from the first logit to those of the row
};

template <typename T>
FASTBTS_DEVICE RowOfWindow row_of_window(const Strided<const T, 5>& logits,
                                         const Strided<const std::int32_t, 2>& origins,
                                         const BlendWeights& weights, std::int64_t b,
                                         std::int64_t k, std::int64_t d, std::int64_t h) {
  RowOfWindow row{};
  if (b >= logits.shape[0]) return row;
  const std::int64_t p = d - origins.at(b, 0), q = h - origins.at(b, 1);
  row.covers = 0 <= p && p < logits.shape[2] && 0 <= q && q < logits.shape[3];
  if (!row.covers) return row;
  row.origin = origins.at(b, 2);
  row.weight = weights.d.at(b, p) * weights.h.at(b, q);
  row.logits = logits.offset(b, k, p, q);
  return row;
}

/// What the windows `covering`, of those from b on, add to a voxel; all lanes must call it.
/// Products and sums in the order of the CPU's, for the same bits.
template <typename T>
FASTBTS_DEVICE float blended(float sum, const Strided<const T, 5>& logits,
                             const Strided<const float, 2>& weights, std::int64_t b,
                             unsigned covering, const RowOfWindow& mine, std::int64_t w) {
  for (unsigned left = covering; left; left &= left - 1) {
    const int lane = __ffs(static_cast<int>(left)) - 1;
    const std::int64_t r = w - __shfl_sync(kAllLanes, mine.origin, lane);
    const float weight = __shfl_sync(kAllLanes, mine.weight, lane);
    const auto offset = static_cast<std::int64_t>(
        __shfl_sync(kAllLanes, static_cast<long long>(mine.logits), lane));
    if (0 <= r && r < logits.shape[4])
      sum +=
          weight * weights.at(b + lane, r) * to_float(logits.data[offset + r * logits.strides[4]]);
  }
  return sum;
}

/// Gathers: a warp for each row (k, d, h) of total adds the windows in the order of b.
template <typename T>
FASTBTS_KERNEL void blend_kernel(Strided<const T, 5> logits, Strided<const std::int32_t, 2> origins,
                                 BlendWeights weights, Strided<float, 4> total,
                                 std::uint32_t n_rows) {
  const std::int64_t lane = threadIdx.x;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [k, d, h] = Row<3>(row, total.shape).index;
    float* line = total.data + total.offset(k, d, h);
    for (std::int64_t b = 0; b < logits.shape[0]; b += kWarp) {
      const RowOfWindow mine = row_of_window(logits, origins, weights, b + lane, k, d, h);
      const unsigned covering = __ballot_sync(kAllLanes, mine.covers);
      if (covering == 0) continue;
      for (std::int64_t begin = 0; begin < total.shape[3]; begin += kWarp) {
        const std::int64_t w = begin + lane;
        float* voxel = w < total.shape[3] ? line + w * total.strides[3] : nullptr;
        const float sum = blended(voxel ? *voxel : 0.0F, logits, weights.w, b, covering, mine, w);
        if (voxel) *voxel = sum;
      }
    }
  }
}

}  // namespace fastbts
