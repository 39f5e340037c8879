#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/pack.h"
#include "ops/pack_kernel.cuh"

namespace fastbts {
namespace {

/// The gains of all images, in scratch.
float* find_gains(const PackArgs& args, const Strided<const float, 5>& volume,
                  cudaStream_t stream) {
  const std::int64_t n_images = volume.shape[0] * volume.shape[1];
  const std::int64_t n = n_elements(args.volume.shape);
  float* const present = args.scratch.data;
  float* const gains = present + n_images;
  CUDA_CHECK(
      cudaMemsetAsync(present, 0, sizeof(float) * static_cast<std::size_t>(n_images), stream));
  present_kernel<<<n_blocks(n), kBlockThreads, 0, stream>>>(volume, args.patch, present);
  CUDA_CHECK_LAUNCH("present_kernel");
  gain_kernel<<<n_blocks(n_images), kBlockThreads, 0, stream>>>(
      present, strided(args.gate), args.gate_bias.data, static_cast<int>(n_images), gains);
  CUDA_CHECK_LAUNCH("gain_kernel");
  return gains;
}

}  // namespace

void pack_cuda(const PackArgs& args, Stream stream) {
  const std::int64_t n = n_elements(args.out.shape);
  if (n == 0) return;
  const auto volume = strided(args.volume.as<float>());
  const auto out = strided(args.out.as<Half>());
  const float* const gains =
      args.gate.data ? find_gains(args, volume, cuda_stream(stream)) : nullptr;
  pack_kernel<<<n_blocks(n), kBlockThreads, 0, cuda_stream(stream)>>>(volume, args.patch, gains,
                                                                      args.background.data, out);
  CUDA_CHECK_LAUNCH("pack_kernel");
}

}  // namespace fastbts
