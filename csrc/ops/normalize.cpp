#include "ops/normalize.h"

#include "core/error.h"

namespace fastbts {
namespace {

constexpr double kMaxVoxels = 4294967295.0;  // a histogram bin of one thread counts in 32 bits

void check_box(const Box& box, const Shape<4>& volume, const Shape<3>& room) {
  require_inside(box, volume, "normalize: box", "the volume");
  const auto [d, h, w] = size_of(box);
  require<OptionsError>(d <= room[0] && h <= room[1] && w <= room[2], "normalize: size: expected at least the box of ",
                        size_of(box), ", got ", room);
  require<OptionsError>(static_cast<double>(d) * static_cast<double>(h) * static_cast<double>(w) <= kMaxVoxels,
                        "normalize: box: expected fewer than 2^32 voxels, got ", box);
}

}  // namespace

void normalize(const NormalizeArgs& args, int n_threads) {
  const auto [lo, hi] = args.percentiles;
  require<OptionsError>(0 <= lo && lo < hi && hi <= 100, "normalize: percentiles: expected 0 <= lo < hi <= 100, got ",
                        args.percentiles);
  const auto [n_modalities, d, h, w] = args.tensor.shape;
  check_box(args.box, args.volume.shape, {d, h, w});
  require<InputError>(n_modalities == args.volume.shape[0], "normalize: tensor: expected ", args.volume.shape[0],
                      " modalities, got ", n_modalities);
  const Shape<2> stats{n_modalities, 4};
  require<InputError>(args.stats.shape == stats, "normalize: stats: expected shape ", stats, ", got ",
                      args.stats.shape);
  normalize_cpu(args, n_threads);
}

}  // namespace fastbts
