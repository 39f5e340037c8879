#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/// Writing rows of outputs that are larger than the caches.
namespace fastbts {

/// Whether an output of this many values should be written past the caches (non-temporal): it would
/// not stay there, and each of its lines would be read before it is written.
template <typename T = float>
bool is_nontemporal(std::int64_t n_values) {
  constexpr std::int64_t kBytes = std::int64_t{1}
                                  << 25;  // about the largest cache that cores share
  return n_values >= kBytes / std::int64_t{sizeof(T)};
}

#ifdef __SSE2__
/// Copies n values past the caches.
template <typename T>
void store_nontemporal(const T* from, std::int64_t n, T* to) {
  constexpr std::int64_t kStep = 16 / static_cast<std::int64_t>(sizeof(T));
  std::int64_t i = 0;
  for (; i < n && reinterpret_cast<std::uintptr_t>(to + i) % 16 != 0; ++i) to[i] = from[i];
  for (; i + kStep <= n; i += kStep) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
  for (; i < n; ++i) to[i] = from[i];
}
#endif

/// Copies n values; if `nontemporal`, past the caches where the machine can: store_fence() must
/// follow before another thread reads them.
template <typename T>
void copy_values(const T* from, std::int64_t n, T* to, [[maybe_unused]] bool nontemporal) {
#ifdef __SSE2__
  if (nontemporal) return store_nontemporal(from, n, to);
#endif
  std::copy_n(from, n, to);
}

inline void store_fence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace fastbts
