#include "ops/pack.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/array/packed.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

void check_fusion(const PackArgs& args) {
  const std::int64_t n_b = args.volume.shape[0], n_m = args.volume.shape[1];
  require_shape("pack: gate", args.gate.shape, {n_m, n_m});
  require_shape("pack: gate_bias", args.gate_bias.shape, {n_m});
  require_shape("pack: background", args.background.shape, {n_m});
  require_shape("pack: scratch", args.scratch.shape, {2, n_b, n_m});
  require_dense(args.scratch, "pack: scratch");
}

}  // namespace

void pack(const PackArgs& args, int n_threads, Stream stream) {
  const auto [n_b, n_m, n_d, n_h, n_w] = args.volume.shape;
  const std::int64_t p = args.patch;
  require_patch("pack", p);
  require<InputError>(n_d % p == 0 && n_h % p == 0 && n_w % p == 0,
                      "pack: volume: expected sizes that are multiples of ", p, ", got shape ",
                      args.volume.shape);
  require_shape("pack: out", args.out.shape, {n_b, n_d / p, n_h / p, n_w / p, n_m * n_children(p)});
  require<InputError>(args.volume.dtype == DType::kFloat32, "pack: volume: expected float32");
  require<OptionsError>(args.step > 0, "pack: step: expected more than 0, got ", args.step);
  if (args.gate.data) check_fusion(args);
  on_device(
      args.volume.device, [&] { pack_cpu(args, n_threads); },
      [&](auto) {
        require<InputError>(args.out.dtype == DType::kFloat16,
                            "pack: out: expected float16 on a CUDA device");
        pack_cuda(args, stream);
      });
}

}  // namespace fastbts
