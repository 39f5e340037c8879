#include "ops/expected_dice.h"

#include "core/array/error.h"
#include "core/array/packed.h"
#include "core/cuda/device.h"

namespace fastbts {

void expected_dice(const ExpectedDiceArgs& args, int n_threads, Stream stream) {
  const Shape<4> voxels = packed_voxels("expected_dice", "logits", args.logits, args.patch);
  const auto n_regions = static_cast<std::size_t>(voxels[0]);
  require<InputError>(voxels[0] <= kMostRegions, "expected_dice: logits: expected at most ",
                      kMostRegions, " regions, got shape ", voxels);
  require<OptionsError>(args.step >= 1, "expected_dice: step: expected 1 or more, got ", args.step);
  require<OptionsError>(args.temperatures.size() == n_regions,
                        "expected_dice: temperatures: expected one for each of ", n_regions,
                        " regions, got ", args.temperatures.size());
  require<OptionsError>(args.thresholds.size() == n_regions,
                        "expected_dice: thresholds: expected one for each of ", n_regions,
                        " regions, got ", args.thresholds.size());
  for (const double temperature : args.temperatures) {
    require<OptionsError>(temperature > 0,
                          "expected_dice: temperatures: expected numbers above 0, got ",
                          temperature);
  }
  for (const double threshold : args.thresholds) {
    require<OptionsError>(0 < threshold && threshold < 1,
                          "expected_dice: thresholds: expected probabilities between 0 and 1, got ",
                          threshold);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    const bool inside =
        0 <= args.offset[i] && 0 <= args.size[i] && args.offset[i] <= voxels[i + 1] - args.size[i];
    require<OptionsError>(inside, "expected_dice: offset: expected the box of ", args.size, " at ",
                          args.offset, " to be inside logits of shape ", voxels);
  }
  require<InputError>(args.sums.shape == Shape<2>{voxels[0], 4},
                      "expected_dice: sums: expected shape (", n_regions, ", 4), got ",
                      args.sums.shape);
  on_device(
      args.logits.device, [&] { expected_dice_cpu(args, n_threads); },
      [&](auto) { expected_dice_cuda(args, stream); });
}

}  // namespace fastbts
