#pragma once

#include <cstdint>
#include <cstring>

namespace fastbts {

/// ln x for positive normal x, to about 1e-15 relative to the exponent. Unlike that of libm it has
/// the same bits on every machine. x = 2^e m with m from 0.7 to 1.4, and ln m = 2 artanh(s) with
/// s = (m - 1) / (m + 1), |s| < 0.18, by its series.
inline double natural_log(double x) {
  constexpr double kLn2 = 0.693147180559945309417;
  constexpr std::uint64_t kMantissa = (1ULL << 52) - 1, kOne = 1023ULL << 52;
  constexpr std::uint64_t kSqrtHalf = 0x3FE6A09E667F3BCDULL;  // bits of sqrt(1/2)
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const std::uint64_t shifted = bits + (kOne - kSqrtHalf);
  const auto exponent = static_cast<std::int64_t>(shifted >> 52) - 1023;
  bits = (shifted & kMantissa) + kSqrtHalf;
  double m;
  std::memcpy(&m, &bits, sizeof(m));
  const double s = (m - 1) / (m + 1), square = s * s;
  double series = 1.0 / 19;
  for (int n = 17; n > 0; n -= 2) series = series * square + 1.0 / n;
  return static_cast<double>(exponent) * kLn2 + 2 * s * series;
}

}  // namespace fastbts
