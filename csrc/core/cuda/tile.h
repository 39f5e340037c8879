#pragma once

#include "core/cuda/kernel.h"
#include "core/cuda/strided.h"

/// Tiles that are turned in shared memory: read along H, written along W, so that the lanes of a
/// warp read and write one piece of memory each where the input is fastest along H and the output
/// along W.
namespace fastbts {

/// Voxels of a tile along H and W.
inline constexpr int kTile = kWarp;

/// Numbers of tiles of an array (C, D, H, W) along its axes.
struct Tiles {
  std::int64_t n[4];

  std::int64_t n_all() const { return n[0] * n[1] * n[2] * n[3]; }
};

inline Tiles tiles_of(const std::int64_t* shape) {
  return {{shape[0], shape[1], (shape[2] + kTile - 1) / kTile, (shape[3] + kTile - 1) / kTile}};
}

/// Calls write(c, d, h, w, read(c, d, h, w)) for all voxels of an array (C, D, H, W) of this shape;
/// read also for some outside it. Blocks of kTile x any threads; all threads must call it.
template <typename Read, typename Write>
FASTBTS_DEVICE void for_each_tile(const Tiles& tiles, std::uint32_t n_tiles,
                                  const std::int64_t* shape, Read read, Write write) {
  FASTBTS_SHARED float values[kTile][kTile + 1];  // one more, so that columns are in other banks
  const auto x = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.y);
  for (std::uint32_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
    const auto [c, d, h_tile, w_tile] = Row<4>(tile, tiles.n).index;
    const std::int64_t h = h_tile * kTile, w = w_tile * kTile;
#pragma unroll 4
    for (int y = static_cast<int>(threadIdx.y); y < kTile; y += step)
      values[y][x] = read(c, d, h + x, w + y);
    __syncthreads();
    for (int y = static_cast<int>(threadIdx.y); y < kTile; y += step) {
      if (h + y < shape[2] && w + x < shape[3]) write(c, d, h + y, w + x, values[x][y]);
    }
    __syncthreads();
  }
}

}  // namespace fastbts
