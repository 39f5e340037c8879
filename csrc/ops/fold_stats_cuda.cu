#include "core/cuda/launch.h"
#include "ops/fold_stats.h"
#include "ops/fold_stats_kernel.cuh"

namespace fastbts {

void fold_stats_cuda(const FoldStatsArgs& args, Stream stream) {
  const auto [n_b, n_c, n_bricks, n_sums] = args.stats.shape;
  if (n_b * n_c == 0) return;
  const FoldStatsPointers pointers{args.stats.data,
                                   args.weight.data,
                                   args.bias.data,
                                   args.film.data,
                                   args.affine.data,
                                   args.mean.data,
                                   args.mean.strides[0],
                                   static_cast<int>(n_c),
                                   static_cast<int>(n_bricks),
                                   static_cast<double>(args.n_voxels)};
  const dim3 blocks(static_cast<unsigned>(n_c), static_cast<unsigned>(n_b));
  fold_stats_kernel<<<blocks, kWarp, 0, cuda_stream(stream)>>>(pointers, kNormEpsilon);
  CUDA_CHECK_LAUNCH("fold_stats_kernel");
}

}  // namespace fastbts
