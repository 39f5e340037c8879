#pragma once

#include <cstdint>
#include <vector>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct ExpectedDiceArgs {
  AnyView<4> logits;
  int patch;
  Shape<3> offset, size;
  std::int64_t step;
  std::vector<double> temperatures, thresholds;
  View<std::int64_t, 2> sums;
};

/// Sums p = sigmoid(logit / temperature) over every step-th voxel of a box, for the expected Dice
/// of each region, 2 sum(p m) / (sum(p) + sum(m)) with its mask m.
///   logits       (K, D', H', W')  floats, rows dense  read     K at most 8; NaN has p = 0
///   patch        p: 1, or 2 for packed logits (K p^3, D'/p, H'/p, W'/p), on the CPU
///   offset, size 3                voxels of logits    read     the box
///   step         1 or more        voxels              read
///   temperatures K                above 0             read
///   thresholds   K                probability, 0..1   read     of sigmoid(logit), as for `label`
///   sums         (K, 4)           int64, dense        written  sum(m), sum(p), sum(p m), max(p); p
///                                                              in units of 2^-30, so that the
///                                                              order of a sum does not matter
/// Floats are float32 or bfloat16; on a CUDA device, where all arrays must be, also float16.
void expected_dice(const ExpectedDiceArgs& args, int n_threads, Stream stream);

void expected_dice_cpu(const ExpectedDiceArgs& args, int n_threads);
void expected_dice_cuda(const ExpectedDiceArgs& args, Stream stream);

inline constexpr std::int64_t kMostRegions = 8;
inline constexpr float kProbabilityUnits = 1 << 30;

}  // namespace fastbts
