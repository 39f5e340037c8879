#pragma once

#include "core/cuda/block.h"
#include "core/cuda/limits.h"
#include "core/cuda/numbers.h"
#include "core/cuda/strided.h"
#include "core/cuda/warp.h"

/// Memory traffic (estimate): the volume once. 4 x 240 x 240 x 155 voxels, int16: 71 MB, 24 us at
/// 3.0 TB/s, 17 us at 4.3 TB/s; expected 40 and 30 us. One memset, one launch.
namespace fastbts {

/// How the axes of the volume are in memory: see MemoryOrder.
struct MemoryAxes {
  int axis[3];
  bool mirrored[3];
};

/// Brain voxels that a thread or a block found. Bounds are maxima: of n - index and of index + 1,
/// so that zero means none.
struct Extent {
  unsigned n_brain;
  unsigned bounds[6];

  FASTBTS_DEVICE void add(int axis, std::int64_t i, std::int64_t n) {
    bounds[2 * axis] = max(bounds[2 * axis], static_cast<unsigned>(n - i));
    bounds[2 * axis + 1] = max(bounds[2 * axis + 1], static_cast<unsigned>(i + 1));
  }
};

/// Number of brain voxels in the lower bits, and of finished blocks above them.
inline constexpr unsigned long long kFinished = 1ULL << 48;

/// Counts the lanes whose voxel is NaN or infinite, or not zero, into the block's counts [M], [M].
template <typename Bits>
FASTBTS_DEVICE void count_lanes(unsigned* counts, std::int64_t m, std::int64_t n_modalities,
                                Bits value, DType dtype) {
  const bool is_nonfinite = is_float(dtype) && value >= infinity_of<Bits>(dtype);
  const unsigned nonfinite = __ballot_sync(kAllLanes, is_nonfinite);
  const unsigned nonzero = __ballot_sync(kAllLanes, value != 0);
  if (!is_first_lane()) return;
  if (nonfinite) atomicAdd(counts + m, static_cast<unsigned>(__popc(nonfinite)));
  if (nonzero) atomicAdd(counts + n_modalities + m, static_cast<unsigned>(__popc(nonzero)));
}

/// Voxels of a row that a lane scans at once, a warp apart, and modalities: so that the latencies
/// of their loads overlap.
inline constexpr unsigned kVoxels = 2, kModalities = 4;

/// Scans kVoxels voxels of a row, from c on; returns a bit for each that is brain.
template <typename Bits>
FASTBTS_DEVICE unsigned scan_voxels(const AnyStrided<4>& volume, const Bits* row, unsigned c,
                                    unsigned* counts) {
  const std::int64_t n_modalities = volume.shape[0];
  const auto n_c = static_cast<unsigned>(volume.shape[3]);
  const Bits kept = value_bits<Bits>(volume.dtype);
  unsigned is_brain = 0;
  for (std::int64_t first = 0; first < n_modalities; first += kModalities) {
    Bits values[kVoxels][kModalities];
    Bits any[kVoxels] = {};
#pragma unroll
    for (unsigned i = 0; i < kVoxels * kModalities; ++i) {
      const unsigned v = i / kModalities, k = i % kModalities;
      const bool exists = c + v * kWarp < n_c && first + k < n_modalities;
      const Bits* voxel = row + (c + v * kWarp) * volume.strides[3];
      values[v][k] = exists ? voxel[(first + k) * volume.strides[0]] : Bits{0};
    }
#pragma unroll
    for (unsigned i = 0; i < kVoxels * kModalities; ++i) {
      Bits& value = values[i / kModalities][i % kModalities];
      value = static_cast<Bits>(value & kept);
      any[i / kModalities] = static_cast<Bits>(any[i / kModalities] | value);
    }
#pragma unroll
    for (unsigned v = 0; v < kVoxels; ++v) {
      if (!__any_sync(kAllLanes, any[v] != 0)) continue;
      if (any[v] != 0) is_brain |= 1U << v;
#pragma unroll
      for (unsigned k = 0; k < kModalities; ++k) {
        if (first + k < n_modalities)
          count_lanes(counts, first + k, n_modalities, values[v][k], volume.dtype);
      }
    }
  }
  return is_brain;
}

/// Adds what the threads of a warp found to that of their block.
FASTBTS_DEVICE void add_extent(const Extent& extent, Extent& of_block) {
  const unsigned n_brain = warp_sum(extent.n_brain);
  if (n_brain == 0) return;
  if (is_first_lane()) atomicAdd(&of_block.n_brain, n_brain);
  for (int i = 0; i < 6; ++i) {
    const unsigned most = warp_max(extent.bounds[i]);
    if (is_first_lane()) atomicMax(of_block.bounds + i, most);
  }
}

/// One thread: turns the maxima along the axes in memory into bounds along those of the volume.
FASTBTS_DEVICE void finish_bounds(const AnyStrided<4>& volume, const MemoryAxes& axes,
                                  unsigned long long* found) {
  unsigned long long maxima[6];
  for (int i = 0; i < 6; ++i) maxima[i] = found[i];
  found[6] %= kFinished;
  if (found[6] == 0) return;
  for (int i = 0; i < 3; ++i) {
    const auto n = static_cast<unsigned long long>(volume.shape[i + 1]);
    const unsigned long long from_end = maxima[2 * i], from_begin = maxima[2 * i + 1];
    unsigned long long* bounds = found + 2 * axes.axis[i];
    bounds[0] = n - (axes.mirrored[i] ? from_begin : from_end);
    bounds[1] = axes.mirrored[i] ? from_end : from_begin;
  }
}

/// A warp for each row (a, b) of the volume, whose axes are in the order of memory; found must be
/// zero. The last block to finish writes the bounds. Dynamic shared memory: 2M unsigned. All lanes
/// of a warp run the same iterations, as they vote.
template <typename Bits>
FASTBTS_KERNEL FASTBTS_BOUNDS(kWarpRowThreads, 4) void brain_box_kernel(AnyStrided<4> volume,
                                                                        MemoryAxes axes,
                                                                        unsigned long long* found,
                                                                        std::uint32_t n_rows) {
  FASTBTS_DYNAMIC_SHARED(unsigned, counts);
  FASTBTS_SHARED Extent of_block;
  const auto n_counts = static_cast<unsigned>(2 * volume.shape[0]);
  for (unsigned i = block_thread(); i < n_counts; i += n_block_threads()) counts[i] = 0;
  if (block_thread() == 0) of_block = {};
  __syncthreads();
  const auto n_c = static_cast<unsigned>(volume.shape[3]);
  Extent extent{};
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [a, b] = Row<2>(row, volume.shape + 1).index;
    const Bits* line = static_cast<const Bits*>(volume.data) + volume.offset(0, a, b);
    for (unsigned begin = 0; begin < n_c; begin += kVoxels * kWarp) {
      const unsigned c = begin + threadIdx.x;
      const unsigned is_brain = scan_voxels(volume, line, c, counts);
      for (unsigned v = 0; v < kVoxels; ++v) {
        if (!(is_brain >> v & 1)) continue;
        ++extent.n_brain;
        extent.add(0, a, volume.shape[1]);
        extent.add(1, b, volume.shape[2]);
        extent.add(2, c + v * kWarp, volume.shape[3]);
      }
    }
  }
  add_extent(extent, of_block);
  __syncthreads();
  for (unsigned i = block_thread(); i < n_counts; i += n_block_threads()) {
    if (counts[i]) atomicAdd(found + 7 + i, static_cast<unsigned long long>(counts[i]));
  }
  if (block_thread() != 0) return;
  for (int i = 0; i < 6; ++i) {
    if (of_block.bounds[i])
      atomicMax(found + i, static_cast<unsigned long long>(of_block.bounds[i]));
  }
  __threadfence();
  const unsigned long long before = atomicAdd(found + 6, kFinished + of_block.n_brain);
  __threadfence();
  if (before / kFinished == gridDim.x - 1) finish_bounds(volume, axes, found);
}

}  // namespace fastbts
