#pragma once

#include "core/cuda/warp.h"

namespace fastbts {

struct FoldStatsPointers {
  const float *stats, *weight, *bias, *film;
  float *affine, *mean;
  std::int64_t mean_step;  // elements between cases of mean
  int n_c, n_bricks;
  double n_voxels;
};

/// One block of one warp per channel; blockIdx.y is the case.
FASTBTS_KERNEL void fold_stats_kernel(FoldStatsPointers p, double epsilon) {
  const int c = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  const std::int64_t b = blockIdx.y;
  const float* const stats = p.stats + (b * p.n_c + c) * p.n_bricks * 2;
  double sum = 0.0, squares = 0.0;
  for (int t = lane; t < p.n_bricks; t += kWarp) {
    sum += static_cast<double>(stats[2 * t]);
    squares += static_cast<double>(stats[2 * t + 1]);
  }
  sum = warp_sum(sum);
  squares = warp_sum(squares);
  if (lane != 0) return;
  const double mean = sum / p.n_voxels, spread = squares / p.n_voxels - mean * mean;
  double scale = 1.0 / sqrt((spread > 0.0 ? spread : 0.0) + epsilon);
  if (p.weight) scale *= static_cast<double>(p.weight[c]);
  double shift = (p.bias ? static_cast<double>(p.bias[c]) : 0.0) - mean * scale;
  const std::int64_t at = b * 2 * p.n_c + c;
  if (p.film) {
    const double factor = 1.0 + static_cast<double>(p.film[at]);
    scale *= factor;
    shift = shift * factor + static_cast<double>(p.film[at + p.n_c]);
  }
  p.affine[at] = static_cast<float>(scale);
  p.affine[at + p.n_c] = static_cast<float>(shift);
  if (p.mean) p.mean[b * p.mean_step + c] = static_cast<float>(mean);
}

}  // namespace fastbts
