#include "core/cuda/launch.h"
#include "ops/expected_dice.h"
#include "ops/expected_dice_kernel.cuh"
#include "ops/label.h"

namespace fastbts {
namespace {

/// The box of the logits, every step-th voxel.
AnyView<4> sampled(const ExpectedDiceArgs& args) {
  Box box;
  for (std::size_t i = 0; i < 3; ++i) box[i] = {args.offset[i], args.offset[i] + args.size[i]};
  AnyView<4> sample = args.logits.cropped(box);
  for (std::size_t i = 1; i < 4; ++i) {
    sample.shape[i] = (sample.shape[i] + args.step - 1) / args.step;
    sample.strides[i] *= args.step;
  }
  return sample;
}

}  // namespace

void expected_dice_cuda(const ExpectedDiceArgs& args, Stream stream) {
  const AnyView<4> sample = sampled(args);
  const auto [n_k, n_d, n_h, n_w] = sample.shape;
  const auto n_bytes = static_cast<std::size_t>(n_k) * 4 * sizeof(std::int64_t);
  CUDA_CHECK(cudaMemsetAsync(args.sums.data, 0, n_bytes, cuda_stream(stream)));
  RowLaunch launch(n_d * n_h, 1024);
  if (launch.blocks.x == 0 || n_w == 0 || n_k == 0) return;
  launch.blocks.y = static_cast<unsigned>(n_k);
  RegionLimits limits{};
  for (std::size_t k = 0; k < args.thresholds.size(); ++k) {
    limits.least[k] = least_logit(args.thresholds[k]);
    limits.inverse_temperature[k] = static_cast<float>(1 / args.temperatures[k]);
  }
  dispatch_floats(sample.dtype, [&, n = n_d * n_h](auto tag) {
    using T = typename decltype(tag)::type;
    expected_dice_kernel<<<launch.blocks, launch.threads, 0, cuda_stream(stream)>>>(
        strided(sample.as<T>()), limits, kProbabilityUnits,
        reinterpret_cast<unsigned long long*>(args.sums.data), static_cast<std::uint32_t>(n));
    CUDA_CHECK_LAUNCH("expected_dice_kernel");
  });
}

}  // namespace fastbts
