#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cuda/limits.h"

namespace fastbts {

using OrderKey = unsigned long long;
inline constexpr int kDigits = 8, kBins = 256;  // a key is read byte by byte, the highest first

/// One of the two percentiles of a modality: the bytes of its key found so far, and its rank among
/// keys that share them.
struct Selection {
  OrderKey prefix;
  OrderKey rank;
};

/// Working memory of `normalize` on a CUDA device: parts of one block, those of 8-byte elements
/// first.
struct NormalizeScratch {
  NormalizeScratch(std::uint8_t* begin, std::int64_t n_modalities, std::int64_t n_voxels) {
    const auto n = static_cast<std::size_t>(n_modalities);
    n_brain = take<OrderKey>(begin, 1);
    selections = take<Selection>(begin, 2 * n);
    histograms = take<unsigned>(begin, 2 * n * kBins);
    n_zeroed = n_bytes;
    partials = take<double>(begin, n * kSumBlocks);
    mask = take<std::uint8_t>(begin, static_cast<std::size_t>(n_voxels));
  }

  OrderKey* n_brain;
  Selection* selections;  // (M, 2)
  unsigned* histograms;   // (M, 2, kBins)
  double* partials;       // (M, kSumBlocks)
  std::uint8_t* mask;     // voxels of the box: 1 where brain
  std::size_t n_zeroed;   // bytes at the beginning that must be zero before the first kernel
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
