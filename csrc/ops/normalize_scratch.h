#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cuda/limits.h"

namespace fastbts {

/// Bins that one coarse bin counts together, and most fine bins: one for each value of 16 bits.
inline constexpr unsigned kFineBins = 256, kMostBins = 1 << 16;

/// Most bins of a digit of a key; a 64-bit key has six digits, each with a histogram of its own for
/// either percentile.
inline constexpr unsigned kDigitBits = 11, kDigitBins = 1 << kDigitBits, kMostDigits = 6;

/// Most blocks of the kernel that marks the brain.
inline constexpr unsigned kMarkBlocks = 1024;

/// What is counted of a modality; zeroed before the first count, as far as it is used.
struct NormalizeCounts {
  unsigned ticket;  // see is_last_block
  unsigned unused[31];
  unsigned coarse[kFineBins];
  unsigned bins[kMostBins];  // of 8 or 16-bit values; or (digit, percentile, kDigitBins)
};
static_assert(kMostDigits * 2 * kDigitBins <= kMostBins);

/// The percentiles of a modality: the digits of their keys found so far, and their ranks among the
/// keys that share them.
struct Selection {
  std::uint64_t prefix[2];
  unsigned rank[2];
};

/// Of some of the values of a modality: number, mean, sum of squared deviations from the mean.
struct MomentPart {
  double n, mean, squares;
};

/// Working memory of `normalize` on a CUDA device: parts of one block, those of 8-byte elements
/// first.
struct NormalizeScratch {
  NormalizeScratch(std::uint8_t* begin, std::int64_t n_modalities, std::int64_t n_voxels) {
    const auto n = static_cast<std::size_t>(n_modalities);
    selections = take<Selection>(begin, n);
    moments = take<MomentPart>(begin, n * kSumBlocks);
    counts = take<NormalizeCounts>(begin, n);
    n_brain = take<unsigned>(begin, kMarkBlocks);
    mask = take<std::uint8_t>(begin, static_cast<std::size_t>(n_voxels));
  }

  Selection* selections;    // (M)
  MomentPart* moments;      // (M, kSumBlocks)
  NormalizeCounts* counts;  // (M)
  unsigned* n_brain;        // brain voxels that each block of mark_brain_kernel found
  std::uint8_t* mask;       // voxels of the box, in the order of memory: 1 where brain
  std::size_t n_bytes = 0;

 private:
  template <typename T>
  T* take(std::uint8_t* begin, std::size_t n) {
    auto* const part = reinterpret_cast<T*>(begin + n_bytes);
    n_bytes += n * sizeof(T);
    return part;
  }
};

}  // namespace fastbts
