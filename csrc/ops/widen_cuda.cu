#include <algorithm>

#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/widen_kernel.cuh"

namespace fastbts {

void widen_cuda(const WidenArgs& args, Stream stream_of_args) {
  const cudaStream_t stream = cuda_stream(stream_of_args);
  std::int64_t most = 0;
  for (const WidenPart& part : args.parts) most = std::max(most, part.n);
  if (most == 0) return;
  const dim3 blocks(n_blocks(most), kWidenParts);
  dispatch_floats(args.dtype, [&](auto tag) {
    widen_kernel<typename decltype(tag)::type><<<blocks, kBlockThreads, 0, stream>>>(args);
    CUDA_CHECK_LAUNCH("widen_kernel");
  });
}

}  // namespace fastbts
