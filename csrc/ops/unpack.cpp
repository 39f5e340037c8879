#include "ops/unpack.h"

#include "core/array/dense.h"
#include "core/array/error.h"

namespace fastbts {

void unpack(const UnpackArgs& args, int n_threads, Stream) {
  const auto& [x, p, out] = args;
  require<DeviceError>(!x.device.is_cuda,
                       "unpack: expected arrays on the CPU, got them on cuda:", x.device.index,
                       "; there is no CUDA version: copy them to the host");
  require<InputError>(x.dtype != DType::kInt8, "unpack: x: expected float32 or uint16, got int8");
  require<OptionsError>(p == 1 || p == 2, "unpack: patch: expected 1 or 2, got ", p);
  const auto [n_b, n_d, n_h, n_w, n_c] = x.shape;
  const std::int64_t n_children = std::int64_t{p} * p * p;
  require<InputError>(n_c % n_children == 0, "unpack: x: expected a multiple of ", n_children,
                      " channels, got shape ", x.shape);
  require_shape("unpack: out", out.shape, {n_b, n_c / n_children, p * n_d, p * n_h, p * n_w});
  unpack_cpu(args, n_threads);
}

}  // namespace fastbts
