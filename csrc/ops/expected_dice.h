#pragma once

#include <cstdint>
#include <vector>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct ExpectedDiceArgs {
  AnyView<4> logits;
  Shape<3> offset, size;
  std::int64_t step;
  double temperature;
  std::vector<double> thresholds;
  View<std::int64_t, 2> sums;
};

/// Sums p = sigmoid(logit / temperature) over every step-th voxel of a box, for the expected Dice of
/// each region, 2 sum(p m) / (sum(p) + sum(m)) with its mask m.
///   logits       (K, D', H', W')  floats, rows dense  read     K at most 8; NaN has p = 0
///   offset, size 3                voxels of logits    read     the box
///   step         1 or more        voxels              read
///   temperature  above 0                              read
///   thresholds   K                probability, 0..1   read     of sigmoid(logit), as for `label`
///   sums         (K, 4)           int64, dense        written  sum(m), sum(p), sum(p m), max(p); p
///                                                              in units of 2^-30, so that the
///                                                              order of a sum does not matter
/// Floats are float32; on a CUDA device, where all arrays must be, also float16 or bfloat16.
void expected_dice(const ExpectedDiceArgs& args, int n_threads, Stream stream);

void expected_dice_cpu(const ExpectedDiceArgs& args, int n_threads);
void expected_dice_cuda(const ExpectedDiceArgs& args, Stream stream);

inline constexpr std::int64_t kMostRegions = 8;
inline constexpr float kProbabilityUnits = 1 << 30;

/// The box of the logits, every step-th voxel.
inline AnyView<4> sampled(const ExpectedDiceArgs& args) {
  Box box;
  for (std::size_t i = 0; i < 3; ++i) box[i] = {args.offset[i], args.offset[i] + args.size[i]};
  AnyView<4> sample = args.logits.cropped(box);
  for (std::size_t i = 1; i < 4; ++i) {
    sample.shape[i] = (sample.shape[i] + args.step - 1) / args.step;
    sample.strides[i] *= args.step;
  }
  return sample;
}

}  // namespace fastbts
