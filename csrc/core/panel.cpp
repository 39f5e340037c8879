#include "core/panel.h"

#include "core/clones.h"

namespace fastbts {
namespace {

constexpr std::int64_t kGroup = PanelMatrix::kGroup;

/// Four rows of the product, their sums in registers.
FASTBTS_CLONES void multiply_group(const float* weights, std::int64_t n_columns, const float* panel, const float* bias,
                                   float* out) {
  float sums[kGroup][kLanes];
  for (std::int64_t r = 0; r < kGroup; ++r) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) sums[r][lane] = bias[r];
  }
  for (std::int64_t c = 0; c < n_columns; ++c) {
    for (std::int64_t r = 0; r < kGroup; ++r) {
      const float weight = weights[c * kGroup + r];
      for (std::int64_t lane = 0; lane < kLanes; ++lane) sums[r][lane] += weight * panel[c * kLanes + lane];
    }
  }
  for (std::int64_t r = 0; r < kGroup; ++r) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) out[r * kLanes + lane] = sums[r][lane];
  }
}

}  // namespace

void PanelMatrix::multiply(const float* panel, const float* bias, float* out) const {
  for (std::int64_t row = 0; row < n_rows_; row += kGroup)
    multiply_group(values_.data() + row * n_columns_, n_columns_, panel, bias + row, out + row * kLanes);
}

}  // namespace fastbts
