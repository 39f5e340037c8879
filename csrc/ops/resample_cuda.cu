#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/resample.h"
#include "ops/resample_kernel.cuh"

namespace fastbts {
namespace {

template <typename T>
void launch_resample(const T* tensor, const ResampleSizes& sizes, T* out, std::int64_t n_out,
                     cudaStream_t stream) {
  if (n_out == 0) return;
  resample_kernel<<<n_blocks(n_out), kBlockThreads, 0, stream>>>(tensor, sizes, out);
  CUDA_CHECK_LAUNCH("resample_kernel");
}

}  // namespace

void resample_cuda(const ResampleArgs& args, Stream stream) {
  require_dense(args.tensor, "resample: tensor");
  require_dense(args.out, "resample: out");
  ResampleSizes sizes{static_cast<int>(args.tensor.shape[0]), {}, {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    sizes.from[axis] = static_cast<int>(args.tensor.shape[axis + 1]);
    sizes.to[axis] = static_cast<int>(args.out.shape[axis + 1]);
  }
  dispatch_floats(args.tensor.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_resample(args.tensor.as<T>().data, sizes, args.out.as<T>().data,
                    n_elements(args.out.shape), cuda_stream(stream));
  });
}

}  // namespace fastbts
