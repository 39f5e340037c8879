#include "ops/resample.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void resample(const ResampleArgs& args, int n_threads, Stream stream) {
  require<InputError>(args.out.shape[0] == args.tensor.shape[0], "resample: out: expected ",
                      args.tensor.shape[0], " channels as in tensor, got ", args.out.shape[0]);
  for (std::size_t axis = 1; axis < 4; ++axis) {
    require<InputError>(args.tensor.shape[axis] > 0,
                        "resample: tensor: expected at least one voxel, got shape ",
                        args.tensor.shape);
  }
  require<InputError>(args.out.dtype == args.tensor.dtype,
                      "resample: out: expected the element type of tensor");
  on_device(
      args.tensor.device, [&] { resample_cpu(args, n_threads); },
      [&](auto) { resample_cuda(args, stream); });
}

}  // namespace fastbts
