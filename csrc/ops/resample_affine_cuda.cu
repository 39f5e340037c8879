#include "core/cuda/launch.h"
#include "ops/resample_affine.h"
#include "ops/resample_affine_kernel.cuh"

namespace fastbts {

void resample_affine_cuda(const ResampleAffineArgs& args, Stream stream) {
  const std::int64_t n_rows = args.out.shape[1] * args.out.shape[2];
  const RowLaunch launch(n_rows);
  if (launch.blocks.x == 0 || args.out.shape[0] == 0 || args.out.shape[3] == 0) return;
  ResampleAffineSettings settings{{}, args.nearest, args.outside};
  for (std::size_t axis = 0; axis < 3; ++axis)
    std::copy(args.map[axis].begin(), args.map[axis].end(), settings.map[axis]);
  resample_affine_kernel<<<launch.blocks, launch.threads, 0, cuda_stream(stream)>>>(
      strided(args.tensor), settings, strided(args.out), static_cast<std::uint32_t>(n_rows));
  CUDA_CHECK_LAUNCH("resample_affine_kernel");
}

}  // namespace fastbts
