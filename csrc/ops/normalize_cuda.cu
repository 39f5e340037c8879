#include "core/cuda/launch.h"
#include "core/cuda/memory_order.h"
#include "ops/normalize.h"
#include "ops/normalize_kernel.cuh"

namespace fastbts {
namespace {

/// Bins that are counted: of each value, or of each digit for both percentiles.
template <typename Bits>
constexpr unsigned n_bins_of() {
  constexpr unsigned kBits = 8 * sizeof(Bits);
  return kBits <= 16 ? 1U << kBits : (kBits + kDigitBits - 1) / kDigitBits * 2 * kDigitBins;
}

template <typename Bits>
void mark_brain(const BrainVoxels& brain, const WarpRowLaunch& launch, cudaStream_t stream) {
  mark_brain_kernel<Bits><<<launch.blocks, launch.threads, 0, stream>>>(
      brain.box, brain.scratch, n_bins_of<Bits>(), brain.n_rows);
  CUDA_CHECK_LAUNCH("mark_brain_kernel");
}

/// Percentiles by radix selection, the highest digit first; then mean and std.
template <typename Bits>
void select_stats(const BrainVoxels& brain, double* stats, cudaStream_t stream) {
  WarpRowLaunch launch(brain.n_rows, 2 * kSumBlocks);
  launch.blocks.y = static_cast<unsigned>(brain.box.shape[0]);
  constexpr int kWidth = kDigitBits;
  int index = 0;
  for (int end = 8 * sizeof(Bits); end > 0; end -= kWidth) {
    const int shift = std::max(0, end - kWidth);
    const Digit digit{index++, shift, end - shift};
    digit_kernel<Bits><<<launch.blocks, launch.threads, 0, stream>>>(brain, digit);
    CUDA_CHECK_LAUNCH("digit_kernel");
  }
  launch.blocks.x = kSumBlocks;
  moment_kernel<Bits><<<launch.blocks, launch.threads, 0, stream>>>(brain, stats);
  CUDA_CHECK_LAUNCH("moment_kernel");
}

template <typename Bits>
void count_stats(const BrainVoxels& brain, double* stats, cudaStream_t stream) {
  WarpRowLaunch launch(brain.n_rows, kSumBlocks);
  launch.blocks.y = static_cast<unsigned>(brain.box.shape[0]);
  count_kernel<Bits><<<launch.blocks, launch.threads, 0, stream>>>(brain, stats);
  CUDA_CHECK_LAUNCH("count_kernel");
}

template <typename Bits>
void scale_rows(const ScaleArgs& args, std::int64_t n_rows, cudaStream_t stream) {
  const WarpRowLaunch launch(n_rows, kMostRowBlocks);
  scale_rows_kernel<Bits>
      <<<launch.blocks, launch.threads, 0, stream>>>(args, static_cast<std::uint32_t>(n_rows));
  CUDA_CHECK_LAUNCH("scale_rows_kernel");
}

/// Exchanges the axes D and H of what has the tensor's axes.
void exchange_axes(ScaleArgs& args) {
  const auto exchange = [](auto* of_d) { std::swap(of_d[0], of_d[1]); };
  exchange(args.box.shape + 1);
  exchange(args.box.strides + 1);
  exchange(args.mask.shape);
  exchange(args.mask.strides);
  exchange(args.corner);
  exchange(args.tensor.shape + 1);
  exchange(args.tensor.strides + 1);
}

/// For a volume that is fastest along H, or D.
template <typename Bits>
void scale_tiles(ScaleArgs args, bool fast_d, cudaStream_t stream) {
  if (fast_d) exchange_axes(args);
  const Tiles tiles = tiles_of(args.tensor.shape);
  const TileLaunch launch(tiles.n_all());
  scale_tiles_kernel<Bits><<<launch.blocks, launch.threads, 0, stream>>>(
      args, tiles, static_cast<std::uint32_t>(tiles.n_all()));
  CUDA_CHECK_LAUNCH("scale_tiles_kernel");
}

template <typename Bits>
void scale(const NormalizeArgs& args, const MemoryOrder& order, std::uint8_t* mask,
           cudaStream_t stream) {
  const auto [n_m, n_d, n_h, n_w] = args.tensor.shape;
  if (n_d * n_h * n_w == 0) return;
  const Box inner = centred(args.box, args.tensor.shape);
  const ScaleArgs scale{strided(args.volume.cropped(args.box)),
                        strided(order.as_given<const std::uint8_t>(mask)),
                        args.stats.data,
                        {inner[0].begin, inner[1].begin, inner[2].begin},
                        strided(args.tensor)};
  if (order.axes[2] == 2) return scale_rows<Bits>(scale, n_m * n_d * n_h, stream);
  scale_tiles<Bits>(scale, order.axes[2] == 0, stream);
}

template <typename Bits>
void run(const NormalizeArgs& args, cudaStream_t stream) {
  const MemoryOrder order(args.volume.cropped(args.box));
  const auto [n_modalities, n_a, n_b, n_c] = order.volume.shape;
  const std::int64_t n_rows = n_c == 0 ? 0 : n_a * n_b;
  const WarpRowLaunch launch(n_rows, kMarkBlocks);
  const BrainVoxels brain{strided(order.volume),
                          {args.scratch.data, n_modalities, n_a * n_b * n_c},
                          static_cast<std::uint32_t>(n_rows),
                          launch.blocks.x,
                          {args.percentiles[0], args.percentiles[1]}};
  mark_brain<Bits>(brain, launch, stream);
  if constexpr (sizeof(Bits) <= 2) {
    count_stats<Bits>(brain, args.stats.data, stream);
  } else {
    select_stats<Bits>(brain, args.stats.data, stream);
  }
  scale<Bits>(args, order, brain.scratch.mask, stream);
}

}  // namespace

void normalize_cuda(const NormalizeArgs& args, Stream stream) {
  if (args.volume.shape[0] == 0) return;
  dispatch_widths(args.volume.dtype,
                  [&](auto tag) { run<typename decltype(tag)::type>(args, cuda_stream(stream)); });
}

}  // namespace fastbts
