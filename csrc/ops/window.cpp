#include "ops/window.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void window(const WindowArgs& args, int n_threads, Stream stream) {
  const auto [n_windows, n_modalities, d, h, w] = args.out.shape;
  require<InputError>(args.origins.shape == Shape<2>{n_windows, 3},
                      "window: origins: expected shape ", Shape<2>{n_windows, 3}, " as out has ",
                      n_windows, " windows, got ", args.origins.shape);
  require<InputError>(n_modalities == args.tensor.shape[0], "window: out: expected ",
                      args.tensor.shape[0], " modalities as in tensor, got ", n_modalities);
  on_device(
      args.tensor.device, [&] { window_cpu(args, n_threads); },
      [&](auto) { window_cuda(args, stream); });
}

}  // namespace fastbts
