#include "core/cuda/launch.h"
#include "ops/brain_box.h"
#include "ops/brain_box_kernel.cuh"

namespace fastbts {

void brain_box_cuda(const BrainBoxArgs& args, Stream stream) {
  const auto [n_modalities, n_d, n_h, n_w] = args.volume.shape;
  const auto n_bytes = static_cast<std::size_t>(args.found.shape[0]) * sizeof(std::int64_t);
  CUDA_CHECK(cudaMemsetAsync(args.found.data, 0, n_bytes, cuda_stream(stream)));
  const RowLaunch launch(n_d * n_h, 4096);
  if (launch.blocks.x == 0 || n_w == 0) return;
  auto* found = reinterpret_cast<unsigned long long*>(args.found.data);
  const std::size_t n_shared = 2 * static_cast<std::size_t>(n_modalities) * sizeof(unsigned);
  brain_box_kernel<<<launch.blocks, launch.threads, n_shared, cuda_stream(stream)>>>(
      strided(args.volume), found, static_cast<std::uint32_t>(n_d * n_h));
  CUDA_CHECK_LAUNCH("brain_box_kernel");
  brain_box_bounds_kernel<<<1, 1, 0, cuda_stream(stream)>>>(strided(args.volume), found);
  CUDA_CHECK_LAUNCH("brain_box_bounds_kernel");
}

}  // namespace fastbts
