#include "ops/resample_affine.h"

#include <cmath>

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void resample_affine(const ResampleAffineArgs& args, int n_threads, Stream stream) {
  const auto& tensor = args.tensor;
  const auto& out = args.out;
  require<InputError>(out.shape[0] == tensor.shape[0], "resample_affine: out: expected ",
                      tensor.shape[0], " channels as in tensor, got ", out.shape[0]);
  require<InputError>(tensor.shape[1] > 0 && tensor.shape[2] > 0 && tensor.shape[3] > 0,
                      "resample_affine: tensor: expected at least one voxel, got shape ",
                      tensor.shape);
  const bool floats =
      out.dtype == DType::kFloat32 || out.dtype == DType::kFloat16 || out.dtype == DType::kBfloat16;
  const bool labels = out.dtype == DType::kUint8 && tensor.dtype == DType::kUint8 && args.nearest;
  require<InputError>(
      floats || labels,
      "resample_affine: out: expected floats, or uint8 for the nearest voxels of a uint8 tensor");
  require<OptionsError>(!labels || (args.outside >= 0 && args.outside <= 255),
                        "resample_affine: outside: expected 0 to 255 for a uint8 out, got ",
                        args.outside);
  for (const auto& row : args.map) {
    for (const double value : row)
      require<OptionsError>(std::isfinite(value),
                            "resample_affine: matrix: expected finite numbers, got ", value);
  }
  on_device(
      tensor.device, [&] { resample_affine_cpu(args, n_threads); },
      [&](auto) { resample_affine_cuda(args, stream); });
}

}  // namespace fastbts
