#pragma once

#include <cstdint>
#include <cstring>

namespace fastbts {

/// Four numbers side by side, which any machine has registers for; a vector of GCC and Clang.
using Four = float __attribute__((vector_size(16)));
constexpr std::int64_t kFour = 4;

inline Four load(const float* values) {
  Four four;
  std::memcpy(&four, values, sizeof(four));
  return four;
}

inline void store(Four four, float* out) { std::memcpy(out, &four, sizeof(four)); }

}  // namespace fastbts
