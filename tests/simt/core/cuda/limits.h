#pragma once

#include <cstdint>

/// In place of csrc/core/cuda/limits.h under the emulation: see there.
namespace fastbts {

inline constexpr unsigned kBlockThreads = 64;
inline constexpr std::int64_t kMostBlocks = 3;

inline constexpr unsigned kRowThreads = 32, kBlockRows = 2;
inline constexpr unsigned kWarpRowThreads = kRowThreads * kBlockRows;
inline constexpr std::int64_t kMostRowBlocks = 3;

inline constexpr int kSumBlocks = 3;

}  // namespace fastbts
