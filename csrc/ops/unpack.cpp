#include "ops/unpack.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/array/packed.h"

namespace fastbts {

void unpack(const UnpackArgs& args, int n_threads, Stream) {
  const auto& [x, p, out] = args;
  require<DeviceError>(!x.device.is_cuda,
                       "unpack: expected arrays on the CPU, got them on cuda:", x.device.index,
                       "; there is no CUDA version: copy them to the host");
  require<InputError>(x.dtype != DType::kInt8, "unpack: x: expected float32 or uint16, got int8");
  require_patch("unpack", p);
  const auto [n_b, n_d, n_h, n_w, n_c] = x.shape;
  require_blocks("unpack", "x", n_c, p);
  require_shape("unpack: out", out.shape, {n_b, n_c / n_children(p), p * n_d, p * n_h, p * n_w});
  unpack_cpu(args, n_threads);
}

}  // namespace fastbts
