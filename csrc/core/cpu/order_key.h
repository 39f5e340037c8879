#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/array/dtype.h"

namespace fastbts {

template <std::size_t n_bytes>
struct SignedOf;
template <>
struct SignedOf<1> : Tag<std::int8_t> {};
template <>
struct SignedOf<2> : Tag<std::int16_t> {};
template <>
struct SignedOf<4> : Tag<std::int32_t> {};
template <>
struct SignedOf<8> : Tag<std::int64_t> {};

/// Signed integer of the width of T; signed, because SSE2 cannot compare unsigned ones.
template <typename T>
using Key = typename SignedOf<sizeof(T)>::type;

/// The bits to flip in a value to get its key, or in a key to get its value.
template <typename T>
constexpr Key<T> key_flips(Key<T> bits) {
  constexpr Key<T> kMin = std::numeric_limits<Key<T>>::min(),
                   kMax = std::numeric_limits<Key<T>>::max();
  if (std::is_floating_point_v<T>)
    return bits < 0 ? kMax : Key<T>{0};  // negative floats are ordered backwards
  return std::is_unsigned_v<T> ? kMin : Key<T>{0};
}

/// Maps values to integers in the same order, so that histograms and selection work on any type.
/// NaN comes first or last, beyond the infinities; -0 comes just before 0.
template <typename T>
Key<T> to_key(T value) {
  Key<T> bits;
  std::memcpy(&bits, &value, sizeof(T));
  return static_cast<Key<T>>(bits ^ key_flips<T>(bits));
}

/// The value of a key.
template <typename T>
T from_key(Key<T> key) {
  const auto bits = static_cast<Key<T>>(key ^ key_flips<T>(key));
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace fastbts
