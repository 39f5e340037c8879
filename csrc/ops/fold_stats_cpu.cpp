#include <cmath>

#include "ops/fold_stats.h"

namespace fastbts {

void fold_stats_cpu(const FoldStatsArgs& args, int) {
  const auto [n_b, n_c, n_bricks, n_sums] = args.stats.shape;
  for (std::int64_t i = 0; i < n_b * n_c; ++i) {
    const std::int64_t b = i / n_c, c = i % n_c;
    double sum = 0, squares = 0;
    for (std::int64_t t = 0; t < n_bricks; ++t) {
      sum += *args.stats.at(b, c, t, 0);
      squares += *args.stats.at(b, c, t, 1);
    }
    const double n = static_cast<double>(args.n_voxels), mean = sum / n;
    const double variance = std::fmax(squares / n - mean * mean, 0.0);
    double scale = 1 / std::sqrt(variance + kNormEpsilon);
    if (args.weight.data) scale *= *args.weight.at(c);
    double shift = (args.bias.data ? *args.bias.at(c) : 0.0F) - mean * scale;
    if (args.film.data) {
      scale *= 1.0 + *args.film.at(b, 0, c);
      shift = shift * (1.0 + *args.film.at(b, 0, c)) + *args.film.at(b, 1, c);
    }
    *args.affine.at(b, 0, c) = static_cast<float>(scale);
    *args.affine.at(b, 1, c) = static_cast<float>(shift);
    if (args.mean.data) *args.mean.at(b, c) = static_cast<float>(mean);
  }
}

}  // namespace fastbts
