#pragma once

#include <cstdint>
#include <cstring>

#include "core/array/dtype.h"
#include "core/cuda/kernel.h"

/// Elements of any DType as unsigned integers of their width (Bits): one kernel for each width
/// serves all types, and the type costs a branch that all threads take alike.
namespace fastbts {

template <typename Bits>
inline constexpr Bits kSignBit = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));

FASTBTS_DEVICE bool is_float(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kFloat16 ||
         dtype == DType::kBfloat16;
}
FASTBTS_DEVICE bool is_signed(DType dtype) {
  return dtype == DType::kInt8 || dtype == DType::kInt16 || dtype == DType::kInt32 ||
         dtype == DType::kInt64;
}

/// The bits of which one is set in every non-zero number: all, without the sign of a float.
template <typename Bits>
FASTBTS_DEVICE Bits value_bits(DType dtype) {
  const Bits all = static_cast<Bits>(~Bits{0});
  return is_float(dtype) ? static_cast<Bits>(all ^ kSignBit<Bits>) : all;
}

/// Without their sign, NaN and infinity are at least this, all other numbers below; of a float
/// type.
template <typename Bits>
FASTBTS_DEVICE Bits infinity_of(DType dtype) {
  if constexpr (sizeof(Bits) == 8) return static_cast<Bits>(0x7FF0000000000000);
  if constexpr (sizeof(Bits) == 4) return static_cast<Bits>(0x7F800000);
  return static_cast<Bits>(dtype == DType::kFloat16 ? 0x7C00 : 0x7F80);
}

/// Maps a number to an integer in the same order; -0 comes just before 0.
template <typename Bits>
FASTBTS_DEVICE Bits order_key(Bits bits, DType dtype) {
  constexpr Bits kSign = kSignBit<Bits>;
  if (is_float(dtype)) return static_cast<Bits>(bits & kSign ? ~bits : bits | kSign);
  return is_signed(dtype) ? static_cast<Bits>(bits ^ kSign) : bits;
}

template <typename Bits>
FASTBTS_DEVICE Bits from_order_key(Bits key, DType dtype) {
  constexpr Bits kSign = kSignBit<Bits>;
  if (is_float(dtype)) return static_cast<Bits>(key & kSign ? key ^ kSign : ~key);
  return is_signed(dtype) ? static_cast<Bits>(key ^ kSign) : key;
}

/// The bits as a number of type T.
template <typename T, typename Bits>
FASTBTS_DEVICE T bits_as(Bits bits) {
  static_assert(sizeof(T) == sizeof(Bits));
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

/// The number that bits are, as a float or a double.
template <typename Real, typename Bits>
FASTBTS_DEVICE Real number(Bits bits, DType dtype) {
  if constexpr (sizeof(Bits) == 1) {
    return static_cast<Real>(dtype == DType::kInt8 ? static_cast<std::int8_t>(bits) : int{bits});
  } else if constexpr (sizeof(Bits) == 2) {
    if (dtype == DType::kFloat16) return to_float(bits_as<Half>(bits));
    if (dtype == DType::kBfloat16) return to_float(bits_as<Bfloat16>(bits));
    return static_cast<Real>(dtype == DType::kInt16 ? static_cast<std::int16_t>(bits) : int{bits});
  } else if constexpr (sizeof(Bits) == 4) {
    if (is_float(dtype)) return static_cast<Real>(bits_as<float>(bits));
    return is_signed(dtype) ? static_cast<Real>(bits_as<std::int32_t>(bits))
                            : static_cast<Real>(bits);
  } else {
    if (is_float(dtype)) return static_cast<Real>(bits_as<double>(bits));
    return is_signed(dtype) ? static_cast<Real>(bits_as<std::int64_t>(bits))
                            : static_cast<Real>(bits);
  }
}

}  // namespace fastbts
