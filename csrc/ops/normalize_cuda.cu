#include "core/cuda/launch.h"
#include "ops/normalize.h"
#include "ops/normalize_kernel.cuh"

namespace fastbts {
namespace {

constexpr std::int64_t kMaxBlocks = 1024;

/// The brain voxels of one call, and its stream.
struct Brain {
  AnyStrided<4> box;
  NormalizeScratch scratch;
  std::uint32_t n_rows;
  unsigned n_modalities;
  cudaStream_t stream;
};

void mark_brain(const Brain& brain) {
  const RowLaunch launch(brain.n_rows, kMaxBlocks);
  mark_brain_kernel<<<launch.blocks, launch.threads, 0, brain.stream>>>(brain.box, brain.scratch,
                                                                        brain.n_rows);
  CUDA_CHECK_LAUNCH("mark_brain_kernel");
}

/// Radix selection of both percentiles of all modalities, a byte of their keys at a time.
void select_percentiles(const Brain& brain, const std::array<double, 2>& percentiles) {
  RowLaunch launch(brain.n_rows, kMaxBlocks);
  launch.blocks.y = brain.n_modalities;
  const unsigned n = 2 * brain.n_modalities;
  for (int digit = kDigits - 1; digit >= 0; --digit) {
    histogram_kernel<<<launch.blocks, launch.threads, 0, brain.stream>>>(brain.box, brain.scratch,
                                                                         digit, brain.n_rows);
    CUDA_CHECK_LAUNCH("histogram_kernel");
    select_kernel<<<(n + kWarp - 1) / kWarp, kWarp, 0, brain.stream>>>(
        brain.scratch, digit, percentiles[0], percentiles[1], static_cast<int>(n));
    CUDA_CHECK_LAUNCH("select_kernel");
  }
}

void sum_moments(const Brain& brain, double* stats) {
  const dim3 blocks(kSumBlocks, brain.n_modalities), threads(kRowThreads, kBlockRows);
  const std::size_t n_shared = threads.x * threads.y * sizeof(double);
  for (const int power : {1, 2}) {
    moment_kernel<<<blocks, threads, n_shared, brain.stream>>>(brain.box, brain.scratch, stats,
                                                               power, brain.n_rows);
    CUDA_CHECK_LAUNCH("moment_kernel");
    stats_kernel<<<(brain.n_modalities + kWarp - 1) / kWarp, kWarp, 0, brain.stream>>>(
        brain.scratch, stats, power, static_cast<int>(brain.n_modalities));
    CUDA_CHECK_LAUNCH("stats_kernel");
  }
}

void scale(const Brain& brain, const NormalizeArgs& args) {
  const auto [n_m, n_d, n_h, n_w] = args.tensor.shape;
  const Box inner = centred(args.box, args.tensor.shape);
  const RowLaunch launch(n_m * n_d * n_h);
  if (launch.blocks.x == 0 || n_w == 0) return;
  scale_kernel<<<launch.blocks, launch.threads, 0, brain.stream>>>(
      brain.box, brain.scratch.mask, args.stats.data,
      {inner[0].begin, inner[1].begin, inner[2].begin}, strided(args.tensor),
      static_cast<std::uint32_t>(n_m * n_d * n_h));
  CUDA_CHECK_LAUNCH("scale_kernel");
}

}  // namespace

void normalize_cuda(const NormalizeArgs& args, Stream stream) {
  const auto [n_d, n_h, n_w] = size_of(args.box);
  const std::int64_t n_modalities = args.volume.shape[0];
  if (n_modalities == 0) return;
  const Brain brain{strided(args.volume.cropped(args.box)),
                    {args.scratch.data, n_modalities, n_d * n_h * n_w},
                    static_cast<std::uint32_t>(n_d * n_h),
                    static_cast<unsigned>(n_modalities),
                    cuda_stream(stream)};
  CUDA_CHECK(cudaMemsetAsync(args.scratch.data, 0, brain.scratch.n_zeroed, brain.stream));
  if (n_d * n_h * n_w > 0) {
    mark_brain(brain);
    select_percentiles(brain, args.percentiles);
  }
  sum_moments(brain, args.stats.data);
  scale(brain, args);
}

}  // namespace fastbts
