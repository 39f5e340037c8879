#pragma once

#include "core/cuda/tile.h"
#include "ops/normalize_stats_kernel.cuh"

/// The brain's mask, and the z-scores: see normalize_stats_kernel.cuh for what is between them.
///
/// Launches, all of them kernels: 3 for 8 and 16 bits, 6 for 32 bits, 9 for 64 bits. Memory traffic
/// (estimate) of a box of 144 x 176 x 144 voxels, 41 % brain, 4 modalities, float32 tensor:
///   int16    mark 33 MB, count 27, write 85: 145 MB, 48 us at 3.0 TB/s, 34 us at 4.3 TB/s;
///            expected 80 and 65 us
///   float32  mark 62 MB, 3 digits 116, moments 38, write 97: 313 MB, 104 and 73 us; expected 160
///            and 130 us
/// Three quarters of the mask's reads, and what the L2 cache keeps between passes, are not taken
/// off.
namespace fastbts {

/// The words of each modality's counts that are used.
inline constexpr std::size_t kWordsBeforeBins = offsetof(NormalizeCounts, bins) / sizeof(unsigned);

FASTBTS_DEVICE void clear_counts(NormalizeCounts* counts, std::int64_t n_modalities,
                                 unsigned n_bins) {
  const unsigned n_words = static_cast<unsigned>(kWordsBeforeBins) + n_bins;
  const unsigned thread = blockIdx.x * n_block_threads() + block_thread();
  for (std::int64_t m = 0; m < n_modalities; ++m) {
    auto* words = reinterpret_cast<unsigned*>(counts + m);
    for (unsigned i = thread; i < n_words; i += gridDim.x * n_block_threads()) words[i] = 0;
  }
}

/// Whether any modality is non-zero; several are loaded at once, so that their latencies overlap.
template <typename Bits>
FASTBTS_DEVICE bool is_brain(const Bits* voxel, std::int64_t n_modalities, std::int64_t step,
                             Bits kept) {
  Bits any = 0;
#pragma unroll 4
  for (std::int64_t m = 0; m < n_modalities; ++m) any = static_cast<Bits>(any | voxel[m * step]);
  return (any & kept) != 0;
}

/// Marks the brain of the box, whose axes are in the order of memory, counts what each block marks,
/// and clears n_bins of the counts of each modality. A warp for each row.
template <typename Bits>
FASTBTS_KERNEL void mark_brain_kernel(AnyStrided<4> box, NormalizeScratch scratch, unsigned n_bins,
                                      std::uint32_t n_rows) {
  clear_counts(scratch.counts, box.shape[0], n_bins);
  const Bits kept = value_bits<Bits>(box.dtype);
  const auto n_c = static_cast<unsigned>(box.shape[3]);
  unsigned n_brain = 0;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [a, b] = Row<2>(row, box.shape + 1).index;
    const Bits* line = static_cast<const Bits*>(box.data) + box.offset(0, a, b);
    std::uint8_t* mask = scratch.mask + static_cast<std::int64_t>(row) * n_c;
    for (unsigned c = threadIdx.x; c < n_c; c += blockDim.x) {
      mask[c] = is_brain(line + c * box.strides[3], box.shape[0], box.strides[0], kept);
      n_brain += mask[c];
    }
  }
  n_brain = block_sum(n_brain);
  if (block_thread() == 0) scratch.n_brain[blockIdx.x] = n_brain;
}

/// What the z-scores are written from and into. All have the same axes: those of the tensor, of
/// which the first two may be exchanged.
struct ScaleArgs {
  AnyStrided<4> box;
  Strided<const std::uint8_t, 3> mask;
  const double* stats;
  std::int64_t corner[3];  // of the box in the tensor
  AnyStrided<4, void> tensor;
};

/// What the values of a modality become: (clipped - mean) * factor.
struct Scaling {
  double lo, hi, mean, factor;
};

FASTBTS_DEVICE Scaling scaling_of(const ScaleArgs& args, std::int64_t m) {
  const double* stats = args.stats + 4 * m;
  return {stats[0], stats[1], stats[2], stats[3] > 0 ? 1 / stats[3] : 0};
}

/// The z-scores of kReads voxels of the tensor, step apart along W: zero outside the box, and where
/// there is no brain.
template <typename Bits>
FASTBTS_DEVICE void z_scores(const ScaleArgs& args, const Scaling& scaling, std::int64_t m,
                             std::int64_t d, std::int64_t h, std::int64_t w, int step, float* z) {
  const AnyStrided<4>& box = args.box;
  d -= args.corner[0];
  h -= args.corner[1];
  w -= args.corner[2];
  const bool crosses = 0 <= d && d < box.shape[1] && 0 <= h && h < box.shape[2];
  const std::uint8_t* mask = args.mask.data + args.mask.offset(d, h);
  const std::int64_t row = box.offset(m, d, h);
  bool is_brain[kReads];
  Bits bits[kReads];
#pragma unroll
  for (int k = 0; k < kReads; ++k) {
    const std::int64_t i = w + k * step;
    is_brain[k] = crosses && 0 <= i && i < box.shape[3] && mask[i * args.mask.strides[2]];
  }
#pragma unroll
  for (int k = 0; k < kReads; ++k) {
    const std::int64_t i = row + (w + k * step) * box.strides[3];
    bits[k] = is_brain[k] ? static_cast<const Bits*>(box.data)[i] : Bits{0};
  }
#pragma unroll
  for (int k = 0; k < kReads; ++k) {
    const double value = clipped(number<double>(bits[k], box.dtype), scaling.lo, scaling.hi);
    z[k] = is_brain[k] ? static_cast<float>((value - scaling.mean) * scaling.factor) : 0.0F;
  }
}

/// A warp for each row (m, d, h) of the tensor.
template <typename Bits>
FASTBTS_KERNEL void scale_rows_kernel(ScaleArgs args, std::uint32_t n_rows) {
  const AnyStrided<4, void>& tensor = args.tensor;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [m, d, h] = Row<3>(row, tensor.shape).index;
    const Scaling scaling = scaling_of(args, m);
    const std::int64_t line = tensor.offset(m, d, h);
    for (std::int64_t begin = threadIdx.x; begin < tensor.shape[3]; begin += kReads * kWarp) {
      float z[kReads];
      z_scores<Bits>(args, scaling, m, d, h, begin, kWarp, z);
      for (int k = 0; k < kReads; ++k) {
        const std::int64_t w = begin + k * kWarp;
        if (w < tensor.shape[3])
          store(tensor.data, tensor.dtype, line + w * tensor.strides[3], z[k]);
      }
    }
  }
}

/// For volumes that are fastest along H: see tile.h.
template <typename Bits>
FASTBTS_KERNEL void scale_tiles_kernel(ScaleArgs args, Tiles tiles, std::uint32_t n_tiles) {
  const AnyStrided<4, void>& tensor = args.tensor;
  for_each_tile<float>(
      tiles, n_tiles, tensor.shape,
      [&](std::int64_t m, std::int64_t d, std::int64_t h, std::int64_t w, int step, float* z) {
        z_scores<Bits>(args, scaling_of(args, m), m, d, h, w, step, z);
      },
      [&](std::int64_t m, std::int64_t d, std::int64_t h, std::int64_t w, float z) {
        store(tensor.data, tensor.dtype, tensor.offset(m, d, h, w), z);
      });
}

}  // namespace fastbts
