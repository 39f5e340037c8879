#include "ops/label.h"

#include <cmath>
#include <limits>

#include "core/array/error.h"
#include "core/array/packed.h"
#include "core/cuda/device.h"

namespace fastbts {

float least_logit(double threshold) {
  const double logit = std::log(threshold / (1 - threshold));
  const auto nearest = static_cast<float>(logit);
  const bool below = static_cast<double>(nearest) < logit;
  return below ? std::nextafter(nearest, std::numeric_limits<float>::infinity()) : nearest;
}

void label(const LabelArgs& args, int n_threads, Stream stream) {
  const Shape<4> voxels = packed_voxels("label", "logits", args.logits, args.patch);
  require<InputError>(voxels[0] == 3, "label: logits: expected 3 regions (WT, TC, ET), got shape ",
                      args.logits.shape);
  for (const double threshold : args.thresholds) {
    require<OptionsError>(0 < threshold && threshold < 1,
                          "label: thresholds: expected probabilities between 0 and 1, got ",
                          args.thresholds);
  }
  require_inside(args.box, args.labels.shape, "label: box", "labels");
  const Shape<3> size = size_of(args.box);
  for (std::size_t i = 0; i < 3; ++i) {
    const bool inside = 0 <= args.offset[i] && args.offset[i] <= voxels[i + 1] - size[i];
    require<OptionsError>(inside, "label: offset: expected the box of ", size, " at ", args.offset,
                          " to be inside logits of shape ", voxels);
  }
  require<InputError>(args.counts.shape[0] == 4, "label: counts: expected shape (4), got ",
                      args.counts.shape);
  on_device(
      args.logits.device, [&] { label_cpu(args, n_threads); },
      [&](auto) { label_cuda(args, stream); });
}

}  // namespace fastbts
