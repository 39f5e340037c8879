#include "ops/label.h"

#include "core/error.h"

namespace fastbts {

RegionCounts label(const LabelArgs& args, int n_threads) {
  require<InputError>(args.logits.shape[0] == 3, "label: logits: expected 3 regions (WT, TC, ET), got shape ",
                      args.logits.shape);
  for (const double threshold : args.thresholds) {
    require<OptionsError>(0 < threshold && threshold < 1,
                          "label: thresholds: expected probabilities between 0 and 1, got ", args.thresholds);
  }
  require_inside(args.box, args.labels.shape, "label: box", "labels");
  const Shape<3> size = size_of(args.box);
  for (std::size_t i = 0; i < 3; ++i) {
    const bool inside = 0 <= args.offset[i] && args.offset[i] <= args.logits.shape[i + 1] - size[i];
    require<OptionsError>(inside, "label: offset: expected the box of ", size, " at ", args.offset,
                          " to lie inside logits of shape ", args.logits.shape);
  }
  return label_cpu(args, n_threads);
}

}  // namespace fastbts
