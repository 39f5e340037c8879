#include "ops/normalize.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/array/packed.h"
#include "core/cuda/device.h"
#include "ops/normalize_scratch.h"

namespace fastbts {
namespace {

constexpr double kMaxVoxels = 4294967295.0;  // a histogram bin of one thread counts in 32 bits

void check_box(const Box& box, const Shape<4>& volume, const Shape<3>& room) {
  require_inside(box, volume, "normalize: box", "the volume");
  const auto [d, h, w] = size_of(box);
  require<OptionsError>(d <= room[0] && h <= room[1] && w <= room[2],
                        "normalize: size: expected at least the box of ", size_of(box), ", got ",
                        room);
  require<OptionsError>(
      static_cast<double>(d) * static_cast<double>(h) * static_cast<double>(w) <= kMaxVoxels,
      "normalize: box: expected fewer than 2^32 voxels, got ", box);
}

void check_scratch(const NormalizeArgs& args) {
  const auto [d, h, w] = size_of(args.box);
  const std::int64_t expected = normalize_scratch(args.volume.shape[0], d * h * w),
                     got = args.scratch.shape[0];
  const bool aligned =
      reinterpret_cast<std::uintptr_t>(args.scratch.data) % alignof(MomentPart) == 0;
  require<InputError>(got >= expected && aligned, "normalize: scratch: expected at least ",
                      expected, " bytes at a multiple of 8, got ", got);
}

void check_fusion(const NormalizeArgs& args, std::int64_t n_m) {
  require_shape("normalize: gate", args.gate.shape, {n_m, n_m});
  require_shape("normalize: gate_bias", args.gate_bias.shape, {n_m});
  require_shape("normalize: background", args.background.shape, {n_m});
}

}  // namespace

std::int64_t normalize_scratch(std::int64_t n_modalities, std::int64_t n_voxels) {
  return static_cast<std::int64_t>(NormalizeScratch(nullptr, n_modalities, n_voxels).n_bytes);
}

Box centred(const Box& box, const Shape<4>& tensor) {
  Box inner;
  for (std::size_t i = 0; i < 3; ++i) {
    inner[i].begin = (tensor[i + 1] - box[i].size()) / 2;
    inner[i].end = inner[i].begin + box[i].size();
  }
  return inner;
}

void normalize(const NormalizeArgs& args, int n_threads, Stream stream) {
  const auto [lo, hi] = args.percentiles;
  require<OptionsError>(0 <= lo && lo < hi && hi <= 100,
                        "normalize: percentiles: expected 0 <= lo < hi <= 100, got ",
                        args.percentiles);
  require_patch("normalize", args.patch);
  require_blocks("normalize", "tensor", args.tensor.shape[0], args.patch);
  const auto [n_modalities, d, h, w] = unpacked_shape(args.tensor.shape, args.patch);
  check_box(args.box, args.volume.shape, {d, h, w});
  require<InputError>(n_modalities == args.volume.shape[0], "normalize: tensor: expected ",
                      args.volume.shape[0], " modalities, got ", n_modalities);
  if (args.gate.data) check_fusion(args, n_modalities);
  require<OptionsError>(args.step > 0, "normalize: step: expected more than 0, got ", args.step);
  const Shape<2> stats{n_modalities, 4};
  require<InputError>(args.stats.shape == stats, "normalize: stats: expected shape ", stats,
                      ", got ", args.stats.shape);
  on_device(
      args.volume.device, [&] { normalize_cpu(args, n_threads); },
      [&](auto) {
        require<DeviceError>(args.patch == 1 && !args.gate.data,
                             "normalize: patch: expected 1 and no gate on a CUDA device, got ",
                             args.patch);
        check_scratch(args);
        normalize_cuda(args, stream);
      });
}

}  // namespace fastbts
