#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/linear_kernel.cuh"

namespace fastbts {

void linear_cuda(const LinearArgs& args, Stream stream) {
  const std::int64_t n = n_elements(args.out.shape);
  if (n == 0) return;
  linear_kernel<<<n_blocks(n * kWarp), kBlockThreads, 0, cuda_stream(stream)>>>(
      strided(args.x), strided(args.weight), args.bias.data, strided(args.add), args.activation,
      strided(args.out));
  CUDA_CHECK_LAUNCH("linear_kernel");
}

}  // namespace fastbts
