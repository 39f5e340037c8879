#pragma once

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"

namespace fastbts {

/// Brain voxels that a thread found. Bounds are maxima: of n - index and of index + 1, so that zero
/// means none.
struct Extent {
  unsigned long long n_brain = 0;
  unsigned long long bounds[6] = {};

  FASTBTS_DEVICE void add(int axis, std::int64_t i, std::int64_t n) {
    const auto from_end = static_cast<unsigned long long>(n - i),
               from_begin = static_cast<unsigned long long>(i + 1);
    if (from_end > bounds[2 * axis]) bounds[2 * axis] = from_end;
    if (from_begin > bounds[2 * axis + 1]) bounds[2 * axis + 1] = from_begin;
  }
};

/// Counts the lanes whose voxel is NaN or infinite, or not zero, into the block's counts [M], [M].
FASTBTS_DEVICE void count_lanes(unsigned* counts, std::int64_t m, std::int64_t n_modalities,
                                double value) {
  const unsigned nonfinite = __ballot_sync(kAllLanes, !(value - value == 0));
  const unsigned nonzero = __ballot_sync(kAllLanes, value != 0);
  if (!is_first_lane()) return;
  if (nonfinite) atomicAdd(counts + m, static_cast<unsigned>(__popc(nonfinite)));
  if (nonzero) atomicAdd(counts + n_modalities + m, static_cast<unsigned>(__popc(nonzero)));
}

FASTBTS_DEVICE void add_extent(const Extent& extent, unsigned long long* found) {
  for (int i = 0; i < 6; ++i) {
    const unsigned long long most = warp_max(extent.bounds[i]);
    if (is_first_lane()) atomicMax(found + i, most);
  }
  const unsigned long long n_brain = warp_sum(extent.n_brain);
  if (is_first_lane()) atomicAdd(found + 6, n_brain);
}

/// One thread per voxel of a modality's grid, of which each row is (d, h); found must be zero.
/// Dynamic shared memory: 2M unsigned. All lanes of a warp run the same iterations, as they vote.
FASTBTS_KERNEL void brain_box_kernel(AnyStrided<4> volume, unsigned long long* found,
                                     std::uint32_t n_rows) {
  FASTBTS_DYNAMIC_SHARED(unsigned, counts);
  const std::int64_t n_modalities = volume.shape[0], n_w = volume.shape[3];
  const std::int64_t thread = threadIdx.x + blockDim.x * threadIdx.y,
                     n_threads = blockDim.x * blockDim.y;
  for (std::int64_t i = thread; i < 2 * n_modalities; i += n_threads) counts[i] = 0;
  __syncthreads();
  Extent extent;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, volume.shape + 1).index;
    for (std::int64_t begin = 0; begin < n_w; begin += blockDim.x) {
      const std::int64_t w = begin + threadIdx.x;
      bool is_brain = false;
      for (std::int64_t m = 0; m < n_modalities; ++m) {
        const double value =
            w < n_w ? load(volume.data, volume.dtype, volume.offset(m, d, h, w)) : 0;
        count_lanes(counts, m, n_modalities, value);
        is_brain = is_brain || value != 0;
      }
      if (!is_brain) continue;
      ++extent.n_brain;
      extent.add(0, d, volume.shape[1]);
      extent.add(1, h, volume.shape[2]);
      extent.add(2, w, n_w);
    }
  }
  add_extent(extent, found);
  __syncthreads();
  for (std::int64_t i = thread; i < 2 * n_modalities; i += n_threads) {
    if (counts[i]) atomicAdd(found + 7 + i, static_cast<unsigned long long>(counts[i]));
  }
}

/// One thread: turns maxima into bounds.
FASTBTS_KERNEL void brain_box_bounds_kernel(AnyStrided<4> volume, unsigned long long* found) {
  if (found[6] == 0) return;
  for (int axis = 0; axis < 3; ++axis) {
    found[2 * axis] = static_cast<unsigned long long>(volume.shape[axis + 1]) - found[2 * axis];
  }
}

}  // namespace fastbts
