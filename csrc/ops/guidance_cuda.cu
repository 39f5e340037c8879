#include "core/cuda/launch.h"
#include "ops/guidance_kernel.cuh"

namespace fastbts {
namespace {

std::int64_t n_voxels(const Shape<5>& shape) { return shape[0] * shape[1] * shape[2] * shape[3]; }

}  // namespace

void similarity_cuda(const SimilarityArgs& args, Stream stream) {
  const std::int64_t n = n_voxels(args.image.shape);
  if (n == 0) return;
  similarity_kernel<<<n_blocks(n), kBlockThreads, 0, cuda_stream(stream)>>>(
      strided(args.image.as<Half>()), strided(args.text), args.scale, args.bias.data,
      strided(args.out.as<Half>()));
  CUDA_CHECK_LAUNCH("similarity_kernel");
}

void text_reads_cuda(const TextReadsArgs& args, Stream stream) {
  const dim3 blocks(static_cast<unsigned>(args.query.shape[1]),
                    static_cast<unsigned>(args.query.shape[0]));
  if (blocks.x == 0 || blocks.y == 0) return;
  const std::size_t shared_bytes = sizeof(float) * kBlockThreads / kWarp;
  text_reads_kernel<<<blocks, kBlockThreads, shared_bytes, cuda_stream(stream)>>>(
      strided(args.query), strided(args.key.as<Half>()), strided(args.value.as<Half>()),
      strided(args.out), args.scratch.data);
  CUDA_CHECK_LAUNCH("text_reads_kernel");
}

void image_reads_cuda(const ImageReadsArgs& args, Stream stream) {
  const std::int64_t n = n_voxels(args.query.shape);
  if (n == 0) return;
  image_reads_kernel<<<n_blocks(n), kBlockThreads, 0, cuda_stream(stream)>>>(
      strided(args.query.as<Half>()), strided(args.key), strided(args.value),
      strided(args.out.as<Half>()));
  CUDA_CHECK_LAUNCH("image_reads_kernel");
}

}  // namespace fastbts
