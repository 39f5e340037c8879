#include "core/cuda/launch.h"
#include "ops/blend.h"
#include "ops/blend_kernel.cuh"

namespace fastbts {

void blend_cuda(const BlendArgs& args, Stream stream) {
  const auto [n_k, n_d, n_h, n_w] = args.total.shape;
  if (n_k * n_d * n_h * n_w == 0) return;
  const WarpRowLaunch launch(n_k * n_d * n_h, kMostRowBlocks);
  const BlendWeights weights{strided(args.weights[0]), strided(args.weights[1]),
                             strided(args.weights[2])};
  dispatch_floats(args.logits.dtype, [&, n = n_k * n_d * n_h](auto tag) {
    using T = typename decltype(tag)::type;
    blend_kernel<<<launch.blocks, launch.threads, 0, cuda_stream(stream)>>>(
        strided(args.logits.as<T>()), strided(args.origins), weights, strided(args.total),
        static_cast<std::uint32_t>(n));
    CUDA_CHECK_LAUNCH("blend_kernel");
  });
}

}  // namespace fastbts
