#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct FoldStatsArgs {
  View<const float, 4> stats;
  std::int64_t n_voxels;
  View<const float, 1> weight, bias;  // null: 1 and 0
  View<const float, 3> film;          // null: none
  View<float, 3> affine;
  View<float, 2> mean;  // null: not wanted
};

/// Instance normalisation from the sums of `conv3d`, as a scale and a shift for the next layer to
/// apply: scale = weight / sqrt(variance + 1e-5), shift = bias - mean scale; then FiLM makes
/// scale (1 + film[b, 0]) and shift (1 + film[b, 0]) + film[b, 1] of them.
///   stats     (B, C, T, 2)  float32, dense       read     sum, sum of squares
///   n_voxels  > 0                                read     voxels that were added up
///   weight    (C)           float32, dense       read     or none, bias too
///   film      (B, 2, C)     float32, dense       read     or none
///   affine    (B, 2, C)     float32, dense       written
///   mean      (B, C)        float32, rows dense  written  or none
/// Sums are float64, in a fixed order.
void fold_stats(const FoldStatsArgs& args, int n_threads, Stream stream);

void fold_stats_cpu(const FoldStatsArgs& args, int n_threads);
void fold_stats_cuda(const FoldStatsArgs& args, Stream stream);

inline constexpr double kNormEpsilon = 1e-5;

}  // namespace fastbts
