#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/resample.h"
#include "ops/resample_kernel.cuh"

namespace fastbts {
namespace {

template <typename T>
void launch_resample(const ResampleArgs& args, cudaStream_t stream) {
  const Shape<4>&from = args.tensor.shape, to = args.out.shape;
  if (n_elements(to) == 0) return;
  ResampleSizes sizes{};
  std::copy(from.begin(), from.end(), sizes.from);
  std::copy(to.begin(), to.end(), sizes.to);
  const std::int64_t n_rows = to[0] * to[1] * to[2], n_taps = to[1] + to[2] + to[3];
  const WarpRowLaunch launch(n_rows, 1024);
  const bool has_tables = n_taps <= kMostTaps;
  const std::size_t n_shared = has_tables ? static_cast<std::size_t>(n_taps) * sizeof(Tap) : 0;
  resample_kernel<<<launch.blocks, launch.threads, n_shared, stream>>>(
      args.tensor.as<T>().data, sizes, args.out.as<T>().data, has_tables,
      static_cast<std::uint32_t>(n_rows));
  CUDA_CHECK_LAUNCH("resample_kernel");
}

}  // namespace

void resample_cuda(const ResampleArgs& args, Stream stream) {
  require_dense(args.tensor, "resample: tensor");
  require_dense(args.out, "resample: out");
  dispatch_floats(args.tensor.dtype, [&](auto tag) {
    launch_resample<typename decltype(tag)::type>(args, cuda_stream(stream));
  });
}

}  // namespace fastbts
