#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace fastbts {

/// The network's activation.
inline float leaky_relu(float x) {
  constexpr float kSlope = 0.01F;
  return x > 0 ? x : kSlope * x;
}

/// e^x within 2 ulp for |x| <= 87, clamped outside; NaN stays NaN. Unlike that of libm it has the
/// same bits on every machine, and can be vectorised. e^x = 2^n e^r with n = round(x / ln 2), and a
/// Taylor series for |r| <= ln(2) / 2.
inline float fast_exp(float x) {
  constexpr float kLog2e = 1.44269504F;
  constexpr float kLn2High = 355.0F / 512,
                  kLn2Low = -2.12194440e-4F;  // ln 2; n * kLn2High is exact
  constexpr float kRound = 12582912.0F;       // 1.5 * 2^23: x + kRound has round(x) in its low bits
  x = std::min(std::max(x, -87.0F), 87.0F);
  const float shifted = x * kLog2e + kRound, n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float series = 1.0F / 5040;
  series = series * r + 1.0F / 720;
  series = series * r + 1.0F / 120;
  series = series * r + 1.0F / 24;
  series = series * r + 1.0F / 6;
  series = series * r + 0.5F;
  series = series * r * r + r + 1.0F;
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127) << 23;  // the exponent of 2^n
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return series * power;
}

inline float sigmoid(float x) { return 1 / (1 + fast_exp(-x)); }

}  // namespace fastbts
