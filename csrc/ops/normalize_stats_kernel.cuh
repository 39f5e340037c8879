#pragma once

#include <cmath>

#include "core/cuda/block.h"
#include "core/cuda/numbers.h"
#include "core/cuda/strided.h"
#include "ops/normalize_scratch.h"

/// Percentiles, mean and std of the brain voxels of each modality. In all of these kernels
/// blockIdx.y is the modality; its last block to finish goes on where all have counted.
namespace fastbts {

/// The brain of one call; axes of the box are in the order of memory.
struct BrainVoxels {
  AnyStrided<4> box;
  NormalizeScratch scratch;
  std::uint32_t n_rows;
  unsigned n_mark_blocks;
  double percentiles[2];
};

FASTBTS_DEVICE double clipped(double value, double lo, double hi) {
  const double above = value < lo ? lo : value;
  return hi < above ? hi : above;
}

/// Index of a percentile among n sorted values: inverted CDF, as percentile_rank of the CPU.
FASTBTS_DEVICE unsigned rank_of(unsigned n, double percent) {
  const double index = ceil(static_cast<double>(n) * (percent / 100) - 1);
  const double last = static_cast<double>(n) - 1;
  return index > last ? n - 1 : index > 0 ? static_cast<unsigned>(index) : 0;
}

/// Number of brain voxels; all threads of a block must call it.
FASTBTS_DEVICE unsigned n_brain_of(const BrainVoxels& brain) {
  unsigned n_mine = 0;
  for (unsigned i = block_thread(); i < brain.n_mark_blocks; i += n_block_threads())
    n_mine += brain.scratch.n_brain[i];
  return block_sum(n_mine);
}

/// Calls fn(bits) for this thread's brain voxels, in a fixed order. Several are loaded at once, so
/// that their latencies overlap; voxels outside the brain are not read.
template <typename Bits, typename Fn>
FASTBTS_DEVICE void for_each_brain(const BrainVoxels& brain, Fn fn) {
  constexpr unsigned kAtOnce = 4;
  const AnyStrided<4>& box = brain.box;
  const auto n = static_cast<unsigned>(box.shape[3]);
  for (std::uint32_t row = first_row(); row < brain.n_rows; row += row_step()) {
    const auto [a, b] = Row<2>(row, box.shape + 1).index;
    const Bits* values = static_cast<const Bits*>(box.data) + box.offset(blockIdx.y, a, b);
    const std::uint8_t* mask = brain.scratch.mask + static_cast<std::int64_t>(row) * n;
    for (unsigned begin = threadIdx.x; begin < n; begin += kAtOnce * blockDim.x) {
      bool is_brain[kAtOnce];
      Bits bits[kAtOnce];
#pragma unroll
      for (unsigned k = 0; k < kAtOnce; ++k) {
        const unsigned c = begin + k * blockDim.x;
        is_brain[k] = c < n && mask[c];
      }
#pragma unroll
      for (unsigned k = 0; k < kAtOnce; ++k) {
        const unsigned c = begin + k * blockDim.x;
        bits[k] = is_brain[k] ? values[c * box.strides[3]] : Bits{0};
      }
#pragma unroll
      for (unsigned k = 0; k < kAtOnce; ++k)
        if (is_brain[k]) fn(bits[k]);
    }
  }
}

/// lo, hi, mean, std of a modality. A sum of equal numbers would leave a std of rounding errors; a
/// NaN must stay.
FASTBTS_DEVICE void write_stats(double* stats, double lo, double hi, double mean, double variance) {
  const bool is_constant = lo == hi && mean == mean;
  stats[0] = lo;
  stats[1] = hi;
  stats[2] = is_constant ? lo : mean;
  stats[3] = is_constant ? 0 : sqrt(variance);
}

/// Fine bins that a block counts in shared memory: those of the values -1024 to 7167, which most
/// images are in; of 8 bits, all. Others are counted in global memory.
template <typename Bits>
inline constexpr unsigned kNearBins = sizeof(Bits) == 1 ? 256 : 8192;

template <typename Bits>
FASTBTS_DEVICE unsigned first_near_bin(DType dtype) {
  constexpr unsigned kBelowZero = 1024;
  const unsigned zero = order_key(Bits{0}, dtype);
  return sizeof(Bits) == 1 || zero < kBelowZero ? 0 : zero - kBelowZero;
}

/// The number whose bin this is.
template <typename Bits>
FASTBTS_DEVICE double number_of_bin(unsigned bin, DType dtype) {
  return number<double>(from_order_key(static_cast<Bits>(bin), dtype), dtype);
}

/// Which bin the entry of a rank is in.
FASTBTS_DEVICE unsigned bin_of_rank(const NormalizeCounts& counts, unsigned rank) {
  const BinRank coarse = find_rank(counts.coarse, kFineBins, rank);
  const unsigned* fine = counts.bins + coarse.bin * kFineBins;
  return coarse.bin * kFineBins + find_rank(fine, kFineBins, coarse.rank).bin;
}

/// Sum of term(number of voxels, clipped value) over a histogram; all threads of the block call it.
/// Coarse bins beyond the percentiles are read as a whole, as all their values are clipped; but not
/// those of floats, which may hold NaN.
template <typename Bits, typename Term>
FASTBTS_DEVICE double sum_of_bins(const NormalizeCounts& counts, DType dtype, unsigned bin_lo,
                                  unsigned bin_hi, Term term) {
  constexpr unsigned kBins = 1U << (8 * sizeof(Bits)), kCoarse = kBins / kFineBins;
  const double lo = number_of_bin<Bits>(bin_lo, dtype), hi = number_of_bin<Bits>(bin_hi, dtype);
  const unsigned begin = is_float(dtype) ? 0 : bin_lo / kFineBins;
  const unsigned end = is_float(dtype) ? kCoarse : bin_hi / kFineBins + 1;
  double sum = 0;
  for (unsigned i = block_thread(); i < kCoarse; i += n_block_threads()) {
    const unsigned n = i < begin || i >= end ? counts.coarse[i] : 0;
    if (n) sum += term(static_cast<double>(n), i < begin ? lo : hi);
  }
#pragma unroll 4
  for (unsigned i = begin * kFineBins + block_thread(); i < end * kFineBins;
       i += n_block_threads()) {
    const unsigned n = counts.bins[i];
    const double value = number_of_bin<Bits>(i, dtype);
    if (n) sum += term(static_cast<double>(n), clipped(value, lo, hi) + (value - value));
  }
  return block_sum(sum);
}

/// Of a whole histogram; all threads of a block call it. Values are summed exactly if they are
/// integers, squares in a fixed order.
template <typename Bits>
FASTBTS_DEVICE void stats_of_counts(const BrainVoxels& brain, const NormalizeCounts& counts,
                                    double* stats) {
  const DType dtype = brain.box.dtype;
  const unsigned n = n_brain_of(brain);
  if (n == 0) {
    if (block_thread() == 0) write_stats(stats, 0, 0, 0, 0);
    return;
  }
  const unsigned bin_lo = bin_of_rank(counts, rank_of(n, brain.percentiles[0])),
                 bin_hi = bin_of_rank(counts, rank_of(n, brain.percentiles[1]));
  const auto sum_of = [&](auto term) {
    return sum_of_bins<Bits>(counts, dtype, bin_lo, bin_hi, term) / static_cast<double>(n);
  };
  const double mean = sum_of([](double n_equal, double value) { return n_equal * value; });
  const double variance = sum_of(
      [=](double n_equal, double value) { return n_equal * ((value - mean) * (value - mean)); });
  if (block_thread() != 0) return;
  write_stats(stats, number_of_bin<Bits>(bin_lo, dtype), number_of_bin<Bits>(bin_hi, dtype), mean,
              variance);
}

/// Counts each value of 8 or 16 bits; the last block writes the stats.
template <typename Bits>
FASTBTS_KERNEL void count_kernel(BrainVoxels brain, double* stats) {
  FASTBTS_SHARED unsigned near[kNearBins<Bits>];
  FASTBTS_SHARED unsigned coarse[kFineBins];
  const unsigned thread = block_thread(), n_threads = n_block_threads();
  for (unsigned i = thread; i < kNearBins<Bits>; i += n_threads) near[i] = 0;
  for (unsigned i = thread; i < kFineBins; i += n_threads) coarse[i] = 0;
  __syncthreads();
  NormalizeCounts& counts = brain.scratch.counts[blockIdx.y];
  const unsigned first = first_near_bin<Bits>(brain.box.dtype);
  for_each_brain<Bits>(brain, [&](Bits bits) {
    const unsigned bin = order_key(bits, brain.box.dtype);
    if (bin - first < kNearBins<Bits>) {
      atomicAdd(near + (bin - first), 1U);
    } else {
      atomicAdd(counts.bins + bin, 1U);
      atomicAdd(coarse + bin / kFineBins, 1U);
    }
  });
  __syncthreads();
  for (unsigned i = thread; i < kNearBins<Bits>; i += n_threads) {
    if (near[i] == 0) continue;
    atomicAdd(counts.bins + (first + i), near[i]);
    atomicAdd(coarse + (first + i) / kFineBins, near[i]);
  }
  __syncthreads();
  for (unsigned i = thread; i < kFineBins; i += n_threads)
    if (coarse[i]) atomicAdd(counts.coarse + i, coarse[i]);
  if (is_last_block(&counts.ticket, gridDim.x))
    stats_of_counts<Bits>(brain, counts, stats + 4 * blockIdx.y);
}

/// Bits [shift, shift + width) of a key.
struct Digit {
  int index, shift, width;
};

/// Finds the digit of both percentiles in their histograms; all threads of a block call it.
FASTBTS_DEVICE void select_digit(const BrainVoxels& brain, const Digit& digit, const unsigned* bins,
                                 bool share, Selection& selection) {
  const unsigned n = n_brain_of(brain);
  if (n == 0) return;
  for (int i = 0; i < 2; ++i) {
    const unsigned rank = digit.index == 0 ? rank_of(n, brain.percentiles[i]) : selection.rank[i];
    const BinRank found = find_rank(bins + (share ? 0 : i * kDigitBins), kDigitBins, rank);
    if (block_thread() != 0) continue;
    const std::uint64_t known = digit.index == 0 ? 0 : selection.prefix[i];
    selection.prefix[i] = known << digit.width | found.bin;
    selection.rank[i] = found.rank;
  }
}

/// Counts a digit of the keys whose higher digits are those found for each percentile; the last
/// block finds the digit. The percentiles share a histogram as long as their digits are the same.
template <typename Bits>
FASTBTS_KERNEL void digit_kernel(BrainVoxels brain, Digit digit) {
  FASTBTS_SHARED unsigned bins[2 * kDigitBins];
  const unsigned thread = block_thread(), n_threads = n_block_threads();
  for (unsigned i = thread; i < 2 * kDigitBins; i += n_threads) bins[i] = 0;
  __syncthreads();
  NormalizeCounts& counts = brain.scratch.counts[blockIdx.y];
  Selection& selection = brain.scratch.selections[blockIdx.y];
  const bool is_first = digit.index == 0;
  const auto prefix_lo = is_first ? Bits{0} : static_cast<Bits>(selection.prefix[0]),
             prefix_hi = is_first ? Bits{0} : static_cast<Bits>(selection.prefix[1]);
  const bool share = prefix_lo == prefix_hi;
  const unsigned last = (1U << digit.width) - 1;
  for_each_brain<Bits>(brain, [&](Bits bits) {
    const Bits key = static_cast<Bits>(order_key(bits, brain.box.dtype) >> digit.shift);
    const Bits higher = is_first ? Bits{0} : static_cast<Bits>(key >> digit.width);
    const unsigned bin = static_cast<unsigned>(key) & last;
    if (higher == prefix_lo) atomicAdd(bins + bin, 1U);
    if (!share && higher == prefix_hi) atomicAdd(bins + (kDigitBins + bin), 1U);
  });
  __syncthreads();
  unsigned* total = counts.bins + digit.index * 2 * kDigitBins;
  for (unsigned i = thread; i < 2 * kDigitBins; i += n_threads)
    if (bins[i]) atomicAdd(total + i, bins[i]);
  if (is_last_block(&counts.ticket, gridDim.x)) select_digit(brain, digit, total, share, selection);
}

/// Chan, Golub & LeVeque 1979, eq. 2.1.
FASTBTS_DEVICE MomentPart merged(const MomentPart& a, const MomentPart& b) {
  if (a.n == 0) return b;
  if (b.n == 0) return a;
  const double n = a.n + b.n, difference = b.mean - a.mean;
  return {n, a.mean + difference * (b.n / n),
          a.squares + b.squares + difference * difference * (a.n * b.n / n)};
}

/// Of the values of this thread, as distances from its first one, so that little cancels out. A NaN
/// or infinite voxel makes them NaN.
template <typename Bits>
FASTBTS_DEVICE MomentPart moments_of_thread(const BrainVoxels& brain, double lo, double hi) {
  double n = 0, first = 0, sum = 0, squares = 0;
  for_each_brain<Bits>(brain, [&](Bits bits) {
    const auto raw = number<double>(bits, brain.box.dtype);
    const double value = clipped(raw, lo, hi) + (raw - raw);
    if (n == 0) first = value;
    const double distance = value - first;
    n += 1;
    sum += distance;
    squares += distance * distance;
  });
  if (n == 0) return {0, 0, 0};
  return {n, first + sum / n, squares - sum * (sum / n)};
}

/// kSumBlocks blocks for each modality; the last one merges what they found and writes the stats.
template <typename Bits>
FASTBTS_KERNEL void moment_kernel(BrainVoxels brain, double* stats) {
  const DType dtype = brain.box.dtype;
  const Selection& selection = brain.scratch.selections[blockIdx.y];
  const auto at = [&](int i) {
    return number<double>(from_order_key(static_cast<Bits>(selection.prefix[i]), dtype), dtype);
  };
  const double lo = at(0), hi = at(1);
  MomentPart* parts = brain.scratch.moments + kSumBlocks * blockIdx.y;
  const MomentPart mine = block_merge(moments_of_thread<Bits>(brain, lo, hi), merged);
  if (block_thread() == 0) parts[blockIdx.x] = mine;
  if (!is_last_block(&brain.scratch.counts[blockIdx.y].ticket, gridDim.x)) return;
  static_assert(kSumBlocks <= kWarpRowThreads, "a part for each thread");
  const unsigned thread = block_thread();
  const MomentPart all =
      block_merge(thread < kSumBlocks ? parts[thread] : MomentPart{0, 0, 0}, merged);
  if (thread != 0) return;
  const bool any = all.n > 0;
  write_stats(stats + 4 * blockIdx.y, any ? lo : 0, any ? hi : 0, any ? all.mean : 0,
              any ? all.squares / all.n : 0);
}

}  // namespace fastbts
