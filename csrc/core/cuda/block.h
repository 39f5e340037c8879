#pragma once

#include "core/cuda/kernel.h"

/// What all threads of a block do together; all of them must call these.
namespace fastbts {

/// Most threads of a block in these functions.
inline constexpr unsigned kMostBlockThreads = 256;

FASTBTS_DEVICE unsigned block_thread() { return threadIdx.x + blockDim.x * threadIdx.y; }
FASTBTS_DEVICE unsigned n_block_threads() { return blockDim.x * blockDim.y; }

/// Merges the items of a block's threads, a power of two of them, as a tree: the same bits every
/// time. Thread 0 gets the result. Merge(a, b) returns what a and b are together.
template <typename T, typename Merge>
FASTBTS_DEVICE T block_merge(T mine, Merge merge) {
  FASTBTS_SHARED T items[kMostBlockThreads];
  const unsigned thread = block_thread();
  __syncthreads();  // the items of an earlier call have been read
  items[thread] = mine;
  for (unsigned half = n_block_threads() / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) items[thread] = merge(items[thread], items[thread + half]);
  }
  return items[thread];
}

/// Sum of the numbers of a block's threads; all get it.
template <typename T>
FASTBTS_DEVICE T block_sum(T mine) {
  FASTBTS_SHARED T total;
  const T sum = block_merge(mine, [](T a, T b) { return a + b; });
  if (block_thread() == 0) total = sum;
  __syncthreads();
  return total;
}

/// Sum of the numbers of this thread and all before it.
FASTBTS_DEVICE unsigned block_scan(unsigned mine) {
  FASTBTS_SHARED unsigned sums[kMostBlockThreads];
  const unsigned thread = block_thread();
  __syncthreads();
  sums[thread] = mine;
  for (unsigned step = 1; step < n_block_threads(); step *= 2) {
    __syncthreads();
    const unsigned before = thread >= step ? sums[thread - step] : 0;
    __syncthreads();
    sums[thread] += before;
  }
  return sums[thread];
}

/// A bin of a histogram, and a rank among its entries.
struct BinRank {
  unsigned bin, rank;
};

/// Where the entry of this rank, which must exist, is in a histogram.
FASTBTS_DEVICE BinRank find_rank(const unsigned* bins, unsigned n_bins, unsigned rank) {
  FASTBTS_SHARED BinRank found;
  const unsigned n_each = (n_bins + n_block_threads() - 1) / n_block_threads();
  const unsigned begin = min(n_bins, block_thread() * n_each), end = min(n_bins, begin + n_each);
  unsigned n_mine = 0;
  for (unsigned i = begin; i < end; ++i) n_mine += bins[i];
  const unsigned n_upto = block_scan(n_mine);
  if (rank < n_upto && rank >= n_upto - n_mine) {
    BinRank mine{begin, rank - (n_upto - n_mine)};
    while (mine.rank >= bins[mine.bin]) mine.rank -= bins[mine.bin++];
    found = mine;
  }
  __syncthreads();
  const BinRank result = found;
  __syncthreads();  // before another call writes it
  return result;
}

/// Whether this block is the last of n_blocks to come here; it then sees all that the others wrote
/// before. ticket: zero at the start, and zero again when the kernel has ended.
FASTBTS_DEVICE bool is_last_block(unsigned* ticket, unsigned n_blocks) {
  FASTBTS_SHARED bool is_last;
  __threadfence();
  __syncthreads();
  if (block_thread() == 0) {
    is_last = atomicAdd(ticket, 1U) == n_blocks - 1;
    if (is_last) *ticket = 0;
  }
  __syncthreads();
  __threadfence();
  return is_last;
}

}  // namespace fastbts
