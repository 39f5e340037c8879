#include "core/cuda/launch.h"
#include "core/cuda/memory_order.h"
#include "ops/brain_box.h"
#include "ops/brain_box_kernel.cuh"

namespace fastbts {

void brain_box_cuda(const BrainBoxArgs& args, Stream stream) {
  const auto n_bytes = static_cast<std::size_t>(args.found.shape[0]) * sizeof(std::int64_t);
  CUDA_CHECK(cudaMemsetAsync(args.found.data, 0, n_bytes, cuda_stream(stream)));
  const MemoryOrder order(args.volume);
  const auto [n_modalities, n_a, n_b, n_c] = order.volume.shape;
  if (n_a * n_b * n_c == 0) return;
  MemoryAxes axes{};
  for (std::size_t i = 0; i < 3; ++i) {
    axes.axis[i] = static_cast<int>(order.axes[i]);
    axes.mirrored[i] = order.mirrored[i];
  }
  const WarpRowLaunch launch(n_a * n_b, 1024);
  const std::size_t n_shared = 2 * static_cast<std::size_t>(n_modalities) * sizeof(unsigned);
  dispatch_widths(args.volume.dtype, [&, n_rows = n_a * n_b](auto tag) {
    using Bits = typename decltype(tag)::type;
    brain_box_kernel<Bits><<<launch.blocks, launch.threads, n_shared, cuda_stream(stream)>>>(
        strided(order.volume), axes, reinterpret_cast<unsigned long long*>(args.found.data),
        static_cast<std::uint32_t>(n_rows));
    CUDA_CHECK_LAUNCH("brain_box_kernel");
  });
}

}  // namespace fastbts
