#include "ops/activate.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void activate(const ActivateArgs& args, int n_threads, Stream stream) {
  const Shape<5>& shape = args.x.shape;
  require<InputError>(args.out.shape == shape, "activate: out: expected shape ", shape, ", got ",
                      args.out.shape);
  if (args.affine.data) {
    const Shape<3> expected{shape[0], 2, shape[4]};
    require<InputError>(args.affine.shape == expected, "activate: affine: expected shape ",
                        expected, ", got ", args.affine.shape);
    require_dense(args.affine, "activate: affine");
  }
  require<InputError>(args.x.dtype != DType::kBfloat16 && args.out.dtype != DType::kBfloat16,
                      "activate: x, out: expected float32 or float16");
  on_device(
      args.x.device, [&] { activate_cpu(args, n_threads); },
      [&](auto) { activate_cuda(args, stream); });
}

}  // namespace fastbts
