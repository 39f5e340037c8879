#pragma once

#include <cstdint>
#include <cstring>

#include "core/array/dtype.h"

namespace fastbts {

/// The upper half of a float32: 8 bits of exponent, 7 of fraction.
struct Bfloat16 {
  std::uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(Bfloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(bits));
  return result;
}

template <typename T>
T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

/// Rounds to the nearest, ties to even, as CPUs do; NaN stays NaN.
template <>
inline Bfloat16 from_float<Bfloat16>(float value) {
  constexpr std::uint32_t kHalf = 0x7FFF, kNan = 0x7FC00000;
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t rounded = bits + kHalf + ((bits >> 16) & 1);
  return {static_cast<std::uint16_t>((value == value ? rounded : kNan) >> 16)};
}

/// Calls fn(Tag<T>{}) with float or Bfloat16.
template <typename Fn>
void dispatch_float(DType dtype, Fn&& fn) {
  dtype == DType::kBfloat16 ? fn(Tag<Bfloat16>{}) : fn(Tag<float>{});
}

}  // namespace fastbts
