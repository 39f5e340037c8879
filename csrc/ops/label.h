#pragma once

#include <array>
#include <cstdint>

#include "core/tensor_view.h"

namespace fastbts {

struct LabelArgs {
  View<const float, 4> logits;
  Shape<3> offset;
  Box box;
  std::array<double, 3> thresholds;
  std::array<std::uint8_t, 3> values;
  View<std::uint8_t, 3> labels;
};

/// Voxels of each region as the labels nest them: ET within TC within WT.
struct RegionCounts {
  std::int64_t n_wt = 0, n_tc = 0, n_et = 0;
};

/// Turns region logits into labels: ET where its probability reaches its threshold, else NCR where that of TC does,
/// else ED where that of WT does, else 0. As in nnU-Net a region counts even where the one around it does not.
///   logits      (3, D', H', W')  float32, rows dense   read     WT, TC, ET; NaN belongs to no region
///   offset      3                voxels of logits      read     where the box begins in logits
///   box         3 x [begin, end) voxels of labels      read
///   thresholds  3                probability, 0..1     read     of WT, TC, ET
///   values      3                uint8                 read     written for ED, NCR, ET
///   labels      (D, H, W)        uint8, any strides    written  inside the box only
RegionCounts label(const LabelArgs& args, int n_threads);

RegionCounts label_cpu(const LabelArgs& args, int n_threads);

}  // namespace fastbts
