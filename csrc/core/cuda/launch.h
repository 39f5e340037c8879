#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/array/dtype.h"
#include "core/cuda/check.h"
#include "core/cuda/limits.h"
#include "core/cuda/strided.h"

/// What launchers (`*_cuda.cu`) share.
namespace fastbts {

/// Calls fn(Tag<T>{}) with the element type of a network tensor.
template <typename Fn>
void dispatch_floats(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kFloat16:
      return fn(Tag<Half>{});
    case DType::kBfloat16:
      return fn(Tag<Bfloat16>{});
    default:
      return fn(Tag<float>{});
  }
}

/// Calls fn(Tag<Bits>{}) with the unsigned integer of the width of an element: see numbers.h.
template <typename Fn>
void dispatch_widths(DType dtype, Fn&& fn) {
  switch (size_of(dtype)) {
    case 1:
      return fn(Tag<std::uint8_t>{});
    case 2:
      return fn(Tag<std::uint16_t>{});
    case 4:
      return fn(Tag<std::uint32_t>{});
    default:
      return fn(Tag<std::uint64_t>{});
  }
}

/// Blocks of kBlockThreads for n threads; kernels loop with a grid stride where this is fewer.
inline unsigned n_blocks(std::int64_t n) {
  return static_cast<unsigned>(std::min(kMostBlocks, (n + kBlockThreads - 1) / kBlockThreads));
}

/// Blocks of a few rows; at most max_blocks, as kernels loop with a grid stride.
struct RowLaunch {
  explicit RowLaunch(std::int64_t n_rows, std::int64_t max_blocks = kMostRowBlocks) {
    require<OptionsError>(n_rows <= std::numeric_limits<std::int32_t>::max(),
                          "expected fewer than 2^31 rows, got ", n_rows);
    const std::int64_t n_blocks = (n_rows + kBlockRows - 1) / kBlockRows;
    blocks.x = static_cast<unsigned>(std::min({n_blocks, max_blocks, kMostRowBlocks}));
  }

  dim3 blocks;
  dim3 threads{kRowThreads, kBlockRows};
};

/// Blocks of as many threads, a warp for each row: rows of a volume are often a little longer than
/// kRowThreads, which leaves half of these idle.
struct WarpRowLaunch {
  WarpRowLaunch(std::int64_t n_rows, std::int64_t max_blocks) {
    require<OptionsError>(n_rows <= std::numeric_limits<std::int32_t>::max(),
                          "expected fewer than 2^31 rows, got ", n_rows);
    const std::int64_t n_blocks = (n_rows + threads.y - 1) / threads.y;
    blocks.x = static_cast<unsigned>(
        std::clamp<std::int64_t>(n_blocks, 1, std::min(max_blocks, kMostRowBlocks)));
  }

  dim3 blocks;
  dim3 threads{kWarp, kWarpRowThreads / kWarp};
};

/// A block for each tile: see tile.h.
struct TileLaunch {
  explicit TileLaunch(std::int64_t n_tiles, std::int64_t max_blocks = kMostRowBlocks) {
    require<OptionsError>(n_tiles <= std::numeric_limits<std::int32_t>::max(),
                          "expected fewer than 2^31 tiles of 32 x 32 voxels, got ", n_tiles);
    blocks.x = static_cast<unsigned>(std::min({n_tiles, max_blocks, kMostRowBlocks}));
  }

  dim3 blocks;
  dim3 threads{kWarp, kWarpRowThreads / kWarp};
};

}  // namespace fastbts
