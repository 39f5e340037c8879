#include "ops/fold_stats.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
void fold_stats(const FoldStatsArgs& args, int n_threads, Stream stream) {
  const std::int64_t n_b = args.stats.shape[0], n_c = args.stats.shape[1];
  require_shape("fold_stats: stats", args.stats.shape, {n_b, n_c, args.stats.shape[2], 2});
  require_shape("fold_stats: affine", args.affine.shape, {n_b, 2, n_c});
  require<InputError>(!args.weight.data == !args.bias.data,
                      "fold_stats: weight, bias: expected both or none");
  if (args.weight.data) require_shape("fold_stats: weight", args.weight.shape, {n_c});
  if (args.bias.data) require_shape("fold_stats: bias", args.bias.shape, {n_c});
  if (args.film.data) require_shape("fold_stats: film", args.film.shape, {n_b, 2, n_c});
  if (args.mean.data) require_shape("fold_stats: mean", args.mean.shape, {n_b, n_c});
  require<OptionsError>(args.n_voxels > 0, "fold_stats: n_voxels: expected at least 1, got ",
                        args.n_voxels);
  require_dense(args.stats, "fold_stats: stats");
  require_dense(args.affine, "fold_stats: affine");
  if (args.film.data) require_dense(args.film, "fold_stats: film");
  on_device(
      args.stats.device, [&] { fold_stats_cpu(args, n_threads); },
      [&](auto) { fold_stats_cuda(args, stream); });
}

}  // namespace fastbts
