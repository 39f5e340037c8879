#include "ops/linear.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
void linear(const LinearArgs& args, int n_threads, Stream stream) {
  const std::int64_t n = args.x.shape[0], n_in = args.x.shape[1], n_out = args.weight.shape[0];
  require_shape("linear: weight", args.weight.shape, {n_out, n_in});
  require_shape("linear: out", args.out.shape, {n, n_out});
  if (args.bias.data) require_shape("linear: bias", args.bias.shape, {n_out});
  if (args.add.data) require_shape("linear: add", args.add.shape, {n, n_out});
  on_device(
      args.x.device, [&] { linear_cpu(args, n_threads); },
      [&](auto) { linear_cuda(args, stream); });
}

}  // namespace fastbts
