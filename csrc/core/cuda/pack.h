#pragma once

#include <cstring>

#include "core/cuda/kernel.h"

namespace fastbts {

/// N adjacent elements, which a kernel loads or stores at once: at most 16 bytes. With the
/// alignment of one element they are N accesses.
template <typename T, int N, std::size_t kAlign = sizeof(T) * N>
struct alignas(kAlign) Pack {
  static constexpr int kItems = N;
  T items[N];
};

template <typename P, typename T>
FASTBTS_DEVICE P load_pack(const T* from) {
  FASTBTS_EXPECT_ALIGNED(from, alignof(P));
  return *reinterpret_cast<const P*>(from);
}

template <typename P, typename T>
FASTBTS_DEVICE void store_pack(T* to, const P& pack) {
  FASTBTS_EXPECT_ALIGNED(to, alignof(P));
  if constexpr (sizeof(P) == sizeof(unsigned) && alignof(P) == sizeof(unsigned)) {
    // The compiler makes two stores of two halves.
    unsigned bits;
    std::memcpy(&bits, &pack, sizeof(bits));
    *reinterpret_cast<unsigned*>(to) = bits;
  } else {
    *reinterpret_cast<P*>(to) = pack;
  }
}

}  // namespace fastbts
