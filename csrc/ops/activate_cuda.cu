#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/activate.h"
#include "ops/activate_kernel.cuh"

namespace fastbts {
namespace {

template <typename In, typename Out>
void launch_activate(const ActivateArgs& args, cudaStream_t stream) {
  const std::int64_t n = n_elements(args.x.shape);
  if (n == 0) return;
  const auto x = strided(args.x.as<In>());
  const auto out = strided(args.out.as<Out>());
  activate_kernel<In, Out><<<n_blocks(n), kBlockThreads, 0, stream>>>(x, args.affine.data, out);
  CUDA_CHECK_LAUNCH("activate_kernel");
}

template <typename In>
void launch(const ActivateArgs& args, cudaStream_t stream) {
  if (args.out.dtype == DType::kFloat16) return launch_activate<In, Half>(args, stream);
  launch_activate<In, float>(args, stream);
}

}  // namespace

void activate_cuda(const ActivateArgs& args, Stream stream) {
  if (args.x.dtype == DType::kFloat16) return launch<Half>(args, cuda_stream(stream));
  launch<float>(args, cuda_stream(stream));
}

}  // namespace fastbts
