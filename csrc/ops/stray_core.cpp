#include "ops/stray_core.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

constexpr std::int64_t kMostVoxels = std::int64_t{1} << 28;  // six faces of each fit into int32

void check_scratch(const StrayCoreArgs& args) {
  const auto [d, h, w] = size_of(args.box);
  require<OptionsError>(w == 0 || d * h < kMostVoxels / w,
                        "stray_core: box: expected fewer than 2^28 voxels, got ", args.box);
  require<InputError>(args.scratch.shape[0] == 4 && args.scratch.shape[1] >= d * h * w,
                      "stray_core: scratch: expected shape (4, ", d * h * w, ") or more, got ",
                      args.scratch.shape);
}

bool are_different(const std::array<std::uint8_t, 3>& values) {
  const auto [edema, core, et] = values;
  return edema && core && et && edema != core && core != et && edema != et;
}

}  // namespace

void stray_core(const StrayCoreArgs& args, int n_threads, Stream stream) {
  require_inside(args.box, args.labels.shape, "stray_core: box", "labels");
  require<OptionsError>(are_different(args.values),
                        "stray_core: values: expected three different labels from 1 to 255, got ",
                        int{args.values[0]}, ", ", int{args.values[1]}, ", ", int{args.values[2]});
  require<OptionsError>(args.min_voxels >= 0, "stray_core: min_voxels: expected 0 or more, got ",
                        args.min_voxels);
  require<InputError>(args.counts.shape[0] == kStrayCoreCounts,
                      "stray_core: counts: expected shape (", kStrayCoreCounts, "), got ",
                      args.counts.shape);
  on_device(
      args.labels.device, [&] { stray_core_cpu(args, n_threads); },
      [&](auto) {
        check_scratch(args);
        stray_core_cuda(args, stream);
      });
}

}  // namespace fastbts
