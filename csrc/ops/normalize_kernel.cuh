#pragma once

#include <cmath>
#include <cstring>

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"
#include "ops/normalize_scratch.h"

namespace fastbts {

/// Maps a number to an integer in the same order; -0 comes just before 0.
FASTBTS_DEVICE OrderKey order_key(double value) {
  OrderKey bits;
  memcpy(&bits, &value, sizeof(bits));
  constexpr OrderKey kSign = OrderKey{1} << 63;
  return bits & kSign ? ~bits : bits | kSign;
}

FASTBTS_DEVICE double from_order_key(OrderKey key) {
  constexpr OrderKey kSign = OrderKey{1} << 63;
  const OrderKey bits = key & kSign ? key ^ kSign : ~key;
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

FASTBTS_DEVICE double clipped(double value, double lo, double hi) {
  const double above = value < lo ? lo : value;
  return hi < above ? hi : above;
}

/// Index of a percentile among n sorted values: inverted CDF, as percentile_rank of the CPU.
FASTBTS_DEVICE OrderKey rank_of(OrderKey n, double percent) {
  const double index = ceil(static_cast<double>(n) * (percent / 100) - 1);
  const double last = static_cast<double>(n) - 1;
  return index > last ? n - 1 : index > 0 ? static_cast<OrderKey>(index) : 0;
}

/// Marks the brain of the box, of which each row is (d, h), and counts it.
FASTBTS_KERNEL void mark_brain_kernel(AnyStrided<4> box, NormalizeScratch scratch,
                                      std::uint32_t n_rows) {
  OrderKey n_brain = 0;
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, box.shape + 1).index;
    for (std::int64_t w = threadIdx.x; w < box.shape[3]; w += blockDim.x) {
      bool is_brain = false;
      for (std::int64_t m = 0; m < box.shape[0]; ++m) {
        is_brain = is_brain || load(box.data, box.dtype, box.offset(m, d, h, w)) != 0;
      }
      scratch.mask[row * box.shape[3] + w] = is_brain;
      n_brain += is_brain;
    }
  }
  n_brain = warp_sum(n_brain);
  if (is_first_lane() && n_brain != 0) atomicAdd(scratch.n_brain, n_brain);
}

/// Calls fn(value) for this thread's brain voxels of modality blockIdx.y, in a fixed order.
template <typename Fn>
FASTBTS_DEVICE void for_each_brain(const AnyStrided<4>& box, const std::uint8_t* mask,
                                   std::uint32_t n_rows, Fn fn) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, box.shape + 1).index;
    for (std::int64_t w = threadIdx.x; w < box.shape[3]; w += blockDim.x) {
      if (mask[row * box.shape[3] + w])
        fn(load(box.data, box.dtype, box.offset(blockIdx.y, d, h, w)));
    }
  }
}

/// Histogram of one byte of the keys whose higher bytes are those found for each percentile;
/// blockIdx.y is the modality.
FASTBTS_KERNEL void histogram_kernel(AnyStrided<4> box, NormalizeScratch scratch, int digit,
                                     std::uint32_t n_rows) {
  FASTBTS_SHARED unsigned bins[2 * kBins];
  const unsigned thread = threadIdx.x + blockDim.x * threadIdx.y,
                 n_threads = blockDim.x * blockDim.y;
  for (unsigned i = thread; i < 2 * kBins; i += n_threads) bins[i] = 0;
  __syncthreads();
  const Selection* selections = scratch.selections + 2 * blockIdx.y;
  for_each_brain(box, scratch.mask, n_rows, [&](double value) {
    const OrderKey key = order_key(value) >> (8 * digit);  // known bytes, and the one to count
    for (int i = 0; i < 2; ++i) {
      if (key >> 8 == selections[i].prefix) atomicAdd(bins + i * kBins + (key & 0xFF), 1U);
    }
  });
  __syncthreads();
  for (unsigned i = thread; i < 2 * kBins; i += n_threads) {
    if (bins[i]) atomicAdd(scratch.histograms + 2 * kBins * blockIdx.y + i, bins[i]);
  }
}

/// One thread per modality and percentile: finds the byte that has its rank, and zeroes the
/// histogram for the next byte.
FASTBTS_KERNEL void select_kernel(NormalizeScratch scratch, int digit, double percent_lo,
                                  double percent_hi, int n) {
  const int i = static_cast<int>(threadIdx.x + blockDim.x * blockIdx.x);
  if (i >= n || *scratch.n_brain == 0) return;
  Selection selection = scratch.selections[i];
  if (digit == kDigits - 1)
    selection.rank = rank_of(*scratch.n_brain, i % 2 ? percent_hi : percent_lo);
  unsigned* bins = scratch.histograms + i * kBins;
  unsigned bin = 0;
  while (selection.rank >= bins[bin]) selection.rank -= bins[bin++];
  selection.prefix = selection.prefix << 8 | bin;
  scratch.selections[i] = selection;
  for (int b = 0; b < kBins; ++b) bins[b] = 0;
}

/// Sum over the threads of a block, as a tree: the same bits every time. Dynamic
/// shared memory: 8 bytes for each thread, a power of two of them.
FASTBTS_DEVICE double block_sum(double mine) {
  FASTBTS_DYNAMIC_SHARED(double, sums);
  const unsigned thread = threadIdx.x + blockDim.x * threadIdx.y;
  sums[thread] = mine;
  for (unsigned half = blockDim.x * blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) sums[thread] += sums[thread + half];
  }
  return sums[0];  // for thread 0
}

/// Sums clipped values (power 1), or squared distances from their mean (power 2), of modality
/// blockIdx.y. A NaN or infinite voxel makes the sum NaN.
FASTBTS_KERNEL void moment_kernel(AnyStrided<4> box, NormalizeScratch scratch, const double* stats,
                                  int power, std::uint32_t n_rows) {
  const Selection* selections = scratch.selections + 2 * blockIdx.y;
  const double lo = from_order_key(selections[0].prefix), hi = from_order_key(selections[1].prefix);
  const double centre = power == 1 ? 0 : stats[4 * blockIdx.y + 2];
  double sum = 0;
  for_each_brain(box, scratch.mask, n_rows, [&](double value) {
    const double term =
        clipped(value, lo, hi) - centre + (value - value);  // the latter is 0, or NaN
    sum += power == 1 ? term : term * term;
  });
  sum = block_sum(sum);
  if (threadIdx.x + threadIdx.y == 0) scratch.partials[kSumBlocks * blockIdx.y + blockIdx.x] = sum;
}

/// One thread per modality: adds the blocks' sums in order and writes lo, hi, mean (power 1) or std
/// (power 2).
FASTBTS_KERNEL void stats_kernel(NormalizeScratch scratch, double* stats, int power,
                                 int n_modalities) {
  const int m = static_cast<int>(threadIdx.x + blockDim.x * blockIdx.x);
  if (m >= n_modalities) return;
  double* row = stats + 4 * m;
  double sum = 0;
  for (int b = 0; b < kSumBlocks; ++b) sum += scratch.partials[kSumBlocks * m + b];
  const bool any = *scratch.n_brain != 0;
  const double mean = any ? sum / static_cast<double>(*scratch.n_brain) : 0;
  if (power == 2) {
    // A sum of equal numbers would leave a std of rounding errors; NaN must stay.
    row[3] = row[0] == row[1] && mean == mean ? 0 : sqrt(mean);
    return;
  }
  row[0] = any ? from_order_key(scratch.selections[2 * m].prefix) : 0;
  row[1] = any ? from_order_key(scratch.selections[2 * m + 1].prefix) : 0;
  row[2] = row[0] == row[1] && mean == mean ? row[0] : mean;
}

struct Corner {
  std::int64_t d, h, w;
};

/// One thread per voxel of the tensor, of which each row is (m, d, h): the z-score of a brain
/// voxel, else zero.
FASTBTS_KERNEL void scale_kernel(AnyStrided<4> box, const std::uint8_t* mask, const double* stats,
                                 Corner corner, AnyStrided<4, void> tensor, std::uint32_t n_rows) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [m, d, h] = Row<3>(row, tensor.shape).index;
    const double lo = stats[4 * m], hi = stats[4 * m + 1], mean = stats[4 * m + 2],
                 std = stats[4 * m + 3];
    const double factor = std > 0 ? 1 / std : 0;
    const std::int64_t i = d - corner.d, j = h - corner.h;
    const bool crosses = 0 <= i && i < box.shape[1] && 0 <= j && j < box.shape[2];
    for (std::int64_t w = threadIdx.x; w < tensor.shape[3]; w += blockDim.x) {
      const std::int64_t k = w - corner.w;
      const bool inside = crosses && 0 <= k && k < box.shape[3];
      float z = 0;
      if (inside && mask[(i * box.shape[2] + j) * box.shape[3] + k]) {
        const double value = load(box.data, box.dtype, box.offset(m, i, j, k));
        z = static_cast<float>((clipped(value, lo, hi) - mean) * factor);
      }
      store(tensor.data, tensor.dtype, tensor.offset(m, d, h, w), z);
    }
  }
}

}  // namespace fastbts
