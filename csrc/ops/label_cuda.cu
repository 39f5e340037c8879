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

}  // namespace

void label_cuda(const LabelArgs& args, Stream stream) {
  CUDA_CHECK(cudaMemsetAsync(args.counts.data, 0, 4 * sizeof(std::int64_t), cuda_stream(stream)));
  const auto labels = args.labels.cropped(args.box);
  const auto [n_d, n_h, n_w] = labels.shape;
  const RowLaunch launch(n_d * n_h, 4096);
  if (launch.blocks.x == 0 || n_w == 0) return;
  const LabelRule rule{least_logit(args.thresholds[0]),
                       least_logit(args.thresholds[1]),
                       least_logit(args.thresholds[2]),
                       args.values[0],
                       args.values[1],
                       args.values[2]};
  dispatch_floats(args.logits.dtype, [&, n = n_d * n_h](auto tag) {
    using T = typename decltype(tag)::type;
    label_kernel<<<launch.blocks, launch.threads, 0, cuda_stream(stream)>>>(
        strided(args.logits.as<T>().cropped(source_box(args))), rule, strided(labels),
        reinterpret_cast<unsigned long long*>(args.counts.data), static_cast<std::uint32_t>(n));
    CUDA_CHECK_LAUNCH("label_kernel");
  });
}

}  // namespace fastbts
