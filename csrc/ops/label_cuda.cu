#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/label.h"
#include "ops/label_kernel.cuh"

namespace fastbts {
namespace {

/// The box within the logits.
Box source_box(const LabelArgs& args) {
  Box box;
  for (std::size_t i = 0; i < 3; ++i)
    box[i] = {args.offset[i], args.offset[i] + args.box[i].size()};
  return box;
}

/// What the kernels take.
template <typename T>
struct LabelLaunch {
  View<const T, 4> logits;
  LabelRule rule;
  View<std::uint8_t, 3> labels;
  unsigned long long* totals;
  cudaStream_t stream;
};

template <typename T>
void launch_rows(const LabelLaunch<T>& args) {
  const std::int64_t n_rows = args.labels.shape[0] * args.labels.shape[1];
  const WarpRowLaunch launch(n_rows, 1024);
  label_kernel<<<launch.blocks, launch.threads, 0, args.stream>>>(
      strided(args.logits), args.rule, strided(args.labels), args.totals,
      static_cast<std::uint32_t>(n_rows));
  CUDA_CHECK_LAUNCH("label_kernel");
}

/// For labels that are not fastest along W: order is that of their axes in memory.
template <typename T>
void launch_tiles(const LabelLaunch<T>& args, const std::array<std::size_t, 3>& order) {
  const std::size_t fast = order[2], other = 1 - fast;
  const auto labels = args.labels.permuted({other, 2, fast});
  const std::int64_t shape[4] = {1, labels.shape[0], labels.shape[1], labels.shape[2]};
  const Tiles tiles = tiles_of(shape);
  const TileLaunch launch(tiles.n_all(), 1024);
  label_tiles_kernel<<<launch.blocks, launch.threads, 0, args.stream>>>(
      strided(args.logits.permuted({other, 2, fast})), args.rule, strided(labels), args.totals,
      tiles, static_cast<std::uint32_t>(tiles.n_all()));
  CUDA_CHECK_LAUNCH("label_tiles_kernel");
}

}  // namespace

void label_cuda(const LabelArgs& args, Stream stream) {
  CUDA_CHECK(cudaMemsetAsync(args.counts.data, 0, 4 * sizeof(std::int64_t), cuda_stream(stream)));
  const auto labels = args.labels.cropped(args.box);
  if (n_elements(labels.shape) == 0) return;
  const LabelRule rule{least_logit(args.thresholds[0]),
                       least_logit(args.thresholds[1]),
                       least_logit(args.thresholds[2]),
                       args.values[0],
                       args.values[1],
                       args.values[2]};
  auto* totals = reinterpret_cast<unsigned long long*>(args.counts.data);
  const auto order = memory_order(labels.shape, labels.strides);
  dispatch_floats(args.logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto logits = args.logits.as<T>().cropped(source_box(args));
    const LabelLaunch<T> launch{logits, rule, labels, totals, cuda_stream(stream)};
    order[2] == 2 ? launch_rows(launch) : launch_tiles(launch, order);
  });
}

}  // namespace fastbts
