#include "ops/blend.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void blend(const BlendArgs& args, int n_threads, Stream stream) {
  const auto& logits = args.logits.shape;
  require<InputError>(args.origins.shape == Shape<2>{logits[0], 3},
                      "blend: origins: expected shape ", Shape<2>{logits[0], 3}, " as logits has ",
                      logits[0], " windows, got ", args.origins.shape);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const Shape<2> expected{logits[0], logits[axis + 2]};
    require<InputError>(args.weights[axis].shape == expected, "blend: weights[", axis,
                        "]: expected shape ", expected, ", got ", args.weights[axis].shape);
  }
  require<InputError>(args.total.shape[0] == logits[1], "blend: total: expected ", logits[1],
                      " regions as in logits, got ", args.total.shape[0]);
  on_device(
      args.logits.device, [&] { blend_cpu(args, n_threads); },
      [&](auto) { blend_cuda(args, stream); });
}

}  // namespace fastbts
