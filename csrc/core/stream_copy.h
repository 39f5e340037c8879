#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace fastbts {

/// Whether an output of this many floats should be written past the caches: it would not stay there, and each of its
/// lines would be read before it is written.
inline bool is_streamed(std::int64_t n_floats) {
  constexpr std::int64_t kBytes = std::int64_t{1} << 25;  // most cores share no more
  return n_floats >= kBytes / std::int64_t{sizeof(float)};
}

/// Copies n values; if `streamed`, past the caches where the machine can: stream_fence() must follow before another
/// thread reads them.
template <typename T>
void copy_values(const T* from, std::int64_t n, T* to, [[maybe_unused]] bool streamed) {
#ifdef __SSE2__
  constexpr std::int64_t kStep = 16 / static_cast<std::int64_t>(sizeof(T));
  const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) / sizeof(T)) % kStep;
  const std::int64_t head = std::min(n, (kStep - misaligned) % kStep);
  if (streamed) {
    to = std::copy_n(from, head, to);
    from += head;
    for (n -= head; n >= kStep; n -= kStep, from += kStep, to += kStep) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to), bytes);
    }
  }
#endif
  std::copy_n(from, n, to);
}

inline void stream_fence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace fastbts
