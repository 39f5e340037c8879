#include "core/cuda/launch.h"
#include "ops/window.h"
#include "ops/window_kernel.cuh"

namespace fastbts {

void window_cuda(const WindowArgs& args, Stream stream) {
  const auto [n_b, n_m, n_d, n_h, n_w] = args.out.shape;
  const RowLaunch launch(n_b * n_m * n_d * n_h);
  if (launch.blocks.x == 0 || n_w == 0) return;
  dispatch_floats(args.tensor.dtype, [&, n = n_b * n_m * n_d * n_h](auto tag) {
    using T = typename decltype(tag)::type;
    window_kernel<<<launch.blocks, launch.threads, 0, cuda_stream(stream)>>>(
        strided(args.tensor.as<T>()), strided(args.origins), strided(args.out),
        static_cast<std::uint32_t>(n));
    CUDA_CHECK_LAUNCH("window_kernel");
  });
}

}  // namespace fastbts
