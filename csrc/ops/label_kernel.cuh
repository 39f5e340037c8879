#pragma once

#include "core/cuda/block.h"
#include "core/cuda/strided.h"
#include "core/cuda/tile.h"
#include "core/cuda/warp.h"

/// Memory traffic (estimate): logits and labels once. 144 x 176 x 144 voxels, float32: 47 MB, 16 us
/// at 3.0 TB/s, 11 us at 4.3 TB/s; expected 25 and 20 us. One memset, one launch.
namespace fastbts {

struct LabelRule {
  float least_wt, least_tc, least_et;  // least logits of each region
  std::uint8_t ed, ncr, et;            // labels written
};

/// Voxels that a thread counted.
struct LabelCounts {
  unsigned wt, tc, et, nonfinite;
};

/// The label of a voxel; all regions contain those inside them.
template <typename T>
FASTBTS_DEVICE std::uint8_t label_of(const Strided<const T, 4>& logits, const LabelRule& rule,
                                     std::int64_t d, std::int64_t h, std::int64_t w,
                                     LabelCounts& counts) {
  const T* voxel = logits.data + logits.offset(0, d, h, w);
  const float logit_wt = to_float(voxel[0]), logit_tc = to_float(voxel[logits.strides[0]]),
              logit_et = to_float(voxel[2 * logits.strides[0]]);
  const bool et = logit_et >= rule.least_et;
  const bool tc = et || logit_tc >= rule.least_tc;
  const bool wt = tc || logit_wt >= rule.least_wt;
  counts.wt += wt;
  counts.tc += tc;
  counts.et += et;
  // The product with 0 is NaN for NaN and infinity.
  counts.nonfinite += !(logit_wt * 0 + logit_tc * 0 + logit_et * 0 == 0);
  return et ? rule.et : tc ? rule.ncr : wt ? rule.ed : std::uint8_t{0};
}

/// Adds the counts of a block's threads, all of which must call it, to the totals.
FASTBTS_DEVICE void add_counts(const LabelCounts& mine, unsigned long long* totals) {
  FASTBTS_SHARED unsigned of_block[4];
  const unsigned thread = block_thread();
  if (thread < 4) of_block[thread] = 0;
  __syncthreads();
  const unsigned counts[4] = {warp_sum(mine.wt), warp_sum(mine.tc), warp_sum(mine.et),
                              warp_sum(mine.nonfinite)};
  for (int i = 0; i < 4; ++i)
    if (is_first_lane() && counts[i]) atomicAdd(of_block + i, counts[i]);
  __syncthreads();
  if (thread < 4 && of_block[thread])
    atomicAdd(totals + thread, static_cast<unsigned long long>(of_block[thread]));
}

/// A warp for each row (d, h) of the box. Both views begin where the box does.
template <typename T>
FASTBTS_KERNEL void label_kernel(Strided<const T, 4> logits, LabelRule rule,
                                 Strided<std::uint8_t, 3> labels, unsigned long long* totals,
                                 std::uint32_t n_rows) {
  LabelCounts counts{};
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, labels.shape).index;
    for (std::int64_t w = threadIdx.x; w < labels.shape[2]; w += blockDim.x)
      labels.at(d, h, w) = label_of(logits, rule, d, h, w, counts);
  }
  add_counts(counts, totals);
}

/// The same for labels that are fastest along H, where logits are along W: the axes H and W of both
/// are exchanged, see tile.h.
template <typename T>
FASTBTS_KERNEL void label_tiles_kernel(Strided<const T, 4> logits, LabelRule rule,
                                       Strided<std::uint8_t, 3> labels, unsigned long long* totals,
                                       Tiles tiles, std::uint32_t n_tiles) {
  LabelCounts counts{};
  const std::int64_t shape[4] = {1, labels.shape[0], labels.shape[1], labels.shape[2]};
  for_each_tile<std::uint8_t>(
      tiles, n_tiles, shape,
      [&](std::int64_t, std::int64_t d, std::int64_t h, std::int64_t w, int step,
          std::uint8_t* some) {
        for (int k = 0; k < kReads; ++k, w += step) {
          const bool inside = h < shape[2] && w < shape[3];
          some[k] = inside ? label_of(logits, rule, d, h, w, counts) : std::uint8_t{0};
        }
      },
      [&](std::int64_t, std::int64_t d, std::int64_t h, std::int64_t w, std::uint8_t label) {
        labels.at(d, h, w) = label;
      });
  add_counts(counts, totals);
}

}  // namespace fastbts
