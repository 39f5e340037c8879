#include "ops/components.h"

#include <limits>

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

void check_scratch(const ComponentsArgs& args) {
  const auto [d, h, w] = size_of(args.box);
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  require<OptionsError>(w == 0 || d * h <= kMost / w,
                        "components: box: expected fewer than 2^31 voxels, got ", args.box);
  require<InputError>(args.scratch.shape[0] == 2 && args.scratch.shape[1] >= d * h * w,
                      "components: scratch: expected shape (2, ", d * h * w, ") or more, got ",
                      args.scratch.shape);
}

}  // namespace

void components(const ComponentsArgs& args, int n_threads, Stream stream) {
  require_inside(args.box, args.labels.shape, "components: box", "labels");
  require<OptionsError>(args.min_voxels >= 0, "components: min_voxels: expected 0 or more, got ",
                        args.min_voxels);
  require<InputError>(args.counts.shape[0] == kComponentsCounts,
                      "components: counts: expected shape (", kComponentsCounts, "), got ",
                      args.counts.shape);
  on_device(
      args.labels.device, [&] { components_cpu(args, n_threads); },
      [&](auto) {
        check_scratch(args);
        components_cuda(args, stream);
      });
}

}  // namespace fastbts
