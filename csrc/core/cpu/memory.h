#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/// How loops over rows that fit no cache read and write memory.
namespace fastbts {

/// Asks for the cache line of this address, which need not be valid.
inline void prefetch([[maybe_unused]] const float* address) {
#ifdef __GNUC__
  __builtin_prefetch(address);
#endif
}

/// Whether an output of this many floats should be written past the caches: it would not stay
/// there, and each of its lines would be read before it is written.
inline bool is_streamed(std::int64_t n_floats) {
  constexpr std::int64_t kBytes = std::int64_t{1} << 25;  // most cores share no more
  return n_floats >= kBytes / std::int64_t{sizeof(float)};
}

#ifdef __SSE2__
/// Writes n values past the caches: one(i) is value i, some(i) the 16 bytes of those from i on.
template <typename T, typename One, typename Some>
void stream_values(T* to, std::int64_t n, const One& one, const Some& some) {
  constexpr std::int64_t kSome = 16 / static_cast<std::int64_t>(sizeof(T));
  std::int64_t i = 0;
  for (; i < n && reinterpret_cast<std::uintptr_t>(to + i) % 16 != 0; ++i) to[i] = one(i);
  for (; i + kSome <= n; i += kSome) _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), some(i));
  for (; i < n; ++i) to[i] = one(i);
}
#endif

/// Copies n values; if `streamed`, past the caches where the machine can: stream_fence() must
/// follow before another thread reads them.
template <typename T>
void copy_values(const T* from, std::int64_t n, T* to, [[maybe_unused]] bool streamed) {
#ifdef __SSE2__
  const auto some = [=](std::int64_t i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
  };
  if (streamed) return stream_values(to, n, [=](std::int64_t i) { return from[i]; }, some);
#endif
  std::copy_n(from, n, to);
}

/// Writes the products of n values, as copy_values does; `to` may be one of the factors.
inline void multiply_values(const float* a, const float* b, std::int64_t n, float* to,
                            [[maybe_unused]] bool streamed) {
#ifdef __SSE2__
  const auto some = [=](std::int64_t i) {
    return _mm_castps_si128(_mm_mul_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i)));
  };
  if (streamed) return stream_values(to, n, [=](std::int64_t i) { return a[i] * b[i]; }, some);
#endif
  for (std::int64_t i = 0; i < n; ++i) to[i] = a[i] * b[i];
}

inline void stream_fence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace fastbts
