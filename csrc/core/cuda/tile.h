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

/// Voxels that a thread reads at once, so that their latencies overlap.
inline constexpr int kReads = 4;

/// Writes all voxels of an array (C, D, H, W) of this shape. read(c, d, h, w, step, T* values)
/// gives kReads values, step apart along W, also of voxels outside the array; write(c, d, h, w,
/// value) takes one. Blocks of kTile x a few threads; all threads must call it.
template <typename T, typename Read, typename Write>
FASTBTS_DEVICE void for_each_tile(const Tiles& tiles, std::uint32_t n_tiles,
                                  const std::int64_t* shape, Read read, Write write) {
  FASTBTS_SHARED T values[kTile][kTile + 1];  // one more, so that columns are in other banks
  const auto x = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.y);
  for (std::uint32_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
    const auto [c, d, h_tile, w_tile] = Row<4>(tile, tiles.n).index;
    const std::int64_t h = h_tile * kTile, w = w_tile * kTile;
    for (int y = static_cast<int>(threadIdx.y); y < kTile; y += kReads * step) {
      T some[kReads];
      read(c, d, h + x, w + y, step, some);
      for (int k = 0; k < kReads; ++k) values[y + k * step][x] = some[k];
    }
    __syncthreads();
    for (int y = static_cast<int>(threadIdx.y); y < kTile; y += step) {
      if (h + y < shape[2] && w + x < shape[3]) write(c, d, h + y, w + x, values[x][y]);
    }
    __syncthreads();
  }
}

}  // namespace fastbts
