#include "ops/linear.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

template <std::size_t N>
void require_shape(const char* name, const Shape<N>& got, const Shape<N>& expected) {
  require<InputError>(got == expected, "linear: ", name, ": expected shape ", expected, ", got ",
                      got);
}

}  // namespace

void linear(const LinearArgs& args, int n_threads, Stream stream) {
  const std::int64_t n = args.x.shape[0], n_in = args.x.shape[1], n_out = args.weight.shape[0];
  require_shape("weight", args.weight.shape, {n_out, n_in});
  require_shape("out", args.out.shape, {n, n_out});
  if (args.bias.data) require_shape("bias", args.bias.shape, {n_out});
  if (args.add.data) require_shape("add", args.add.shape, {n, n_out});
  on_device(
      args.x.device, [&] { linear_cpu(args, n_threads); },
      [&](auto) { linear_cuda(args, stream); });
}

}  // namespace fastbts
