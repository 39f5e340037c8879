#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbts {

/// Where each point of a resampled axis takes its value from: low + part * (high - low). The outer
/// faces of both grids coincide, so point i is at (i + 1/2) n_in / n_out - 1/2; beyond the
/// outermost centres the edge value is used.
struct Taps {
  Taps(std::int64_t n_in, std::int64_t n_out) {
    for (std::int64_t i = 0; i < n_out; ++i) {
      const double centre =
          (static_cast<double>(i) + 0.5) * static_cast<double>(n_in) / static_cast<double>(n_out);
      const double position = std::clamp(centre - 0.5, 0.0, static_cast<double>(n_in - 1));
      low.push_back(static_cast<std::int64_t>(position));
      high.push_back(std::min(low.back() + 1, n_in - 1));
      part.push_back(static_cast<float>(position - static_cast<double>(low.back())));
    }
  }

  std::vector<std::int64_t> low, high;
  std::vector<float> part;  // 0 <= part < 1, or 1 by rounding
};

inline float lerp(float low, float high, float part) { return low + (high - low) * part; }

/// Interpolates between two rows; out may be one of them.
inline void lerp_rows(const float* low, const float* high, float part, std::int64_t n, float* out) {
  for (std::int64_t w = 0; w < n; ++w) out[w] = lerp(low[w], high[w], part);
}

/// Interpolates along a row.
inline void lerp_along(const float* row, const Taps& taps, float* out) {
  for (std::size_t w = 0; w < taps.part.size(); ++w)
    out[w] = lerp(row[taps.low[w]], row[taps.high[w]], taps.part[w]);
}

}  // namespace fastbts
