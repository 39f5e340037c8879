#pragma once

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"

namespace fastbts {

struct LabelRule {
  float least_wt, least_tc, least_et;  // least logits of each region
  std::uint8_t ed, ncr, et;            // labels written
};

/// Integer counts, so that their order does not matter; all threads of the block must call it.
FASTBTS_DEVICE void add_count(unsigned long long* total, unsigned long long mine) {
  const unsigned long long sum = warp_sum(mine);
  if (is_first_lane() && sum != 0) atomicAdd(total, sum);
}

/// One thread per voxel of the box, of which each row is (d, h). Both views begin where the box
/// does.
template <typename T>
FASTBTS_KERNEL void label_kernel(Strided<const T, 4> logits, LabelRule rule,
                                 Strided<std::uint8_t, 3> labels, unsigned long long* counts,
                                 std::uint32_t n_rows) {
  unsigned long long n_wt = 0, n_tc = 0, n_et = 0, n_nonfinite = 0;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, labels.shape).index;
    for (std::int64_t w = threadIdx.x; w < labels.shape[2]; w += blockDim.x) {
      const float logit_wt = to_float(logits.at(0, d, h, w)),
                  logit_tc = to_float(logits.at(1, d, h, w)),
                  logit_et = to_float(logits.at(2, d, h, w));
      const bool et = logit_et >= rule.least_et;
      const bool tc = et || logit_tc >= rule.least_tc;
      const bool wt = tc || logit_wt >= rule.least_wt;
      labels.at(d, h, w) = et ? rule.et : tc ? rule.ncr : wt ? rule.ed : std::uint8_t{0};
      n_wt += wt;
      n_tc += tc;
      n_et += et;
      // The product with 0 is NaN for NaN and infinity.
      n_nonfinite += !(logit_wt * 0 + logit_tc * 0 + logit_et * 0 == 0);
    }
  }
  add_count(counts + 0, n_wt);
  add_count(counts + 1, n_tc);
  add_count(counts + 2, n_et);
  add_count(counts + 3, n_nonfinite);
}

}  // namespace fastbts
