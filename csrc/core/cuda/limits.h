#pragma once

#include <cstdint>
#include <limits>

/// How launches are cut into blocks. The SIMT emulation of the tests has a `limits.h` of its own,
/// with few and small blocks, so that small arrays make kernels loop with a grid stride.
namespace fastbts {

/// Of kernels over all elements of a dense array.
inline constexpr unsigned kBlockThreads = 256;
inline constexpr std::int64_t kMostBlocks = 1 << 20;

/// Of kernels over rows: threads along a row, and rows of a block.
inline constexpr unsigned kRowThreads = 64, kBlockRows = 4;
inline constexpr unsigned kWarpRowThreads = kRowThreads * kBlockRows;  // with a warp for each row
inline constexpr std::int64_t kMostRowBlocks = std::numeric_limits<std::int32_t>::max();

/// Of sums of doubles; fixed, so that they have the same bits on every device.
inline constexpr int kSumBlocks = 128;

}  // namespace fastbts
