#pragma once

#include <array>
#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct LabelArgs {
  AnyView<4> logits;
  int patch;
  Shape<3> offset;
  Box box;
  std::array<double, 3> thresholds;
  std::array<std::uint8_t, 3> values;
  View<std::uint8_t, 3> labels;
  View<std::int64_t, 1> counts;
};

/// Turns region logits into labels: ET where its probability reaches its threshold, else NCR where
/// that of TC does, else ED where that of WT does, else 0. As in nnU-Net a region counts even where
/// the one around it does not.
///   logits      (3, D', H', W')  floats, rows dense  read     WT, TC, ET; NaN belongs to no region
///   patch       p: 1, or 2 for packed logits (3 p^3, D'/p, H'/p, W'/p), on the CPU
///   offset      3                voxels of logits    read     where the box begins in logits
///   box         3 x [begin, end) voxels of labels    read
///   thresholds  3                probability, 0..1   read     of WT, TC, ET
///   values      3                uint8               read     written for ED, NCR, ET
///   labels      (D, H, W)        uint8, any strides  written  inside the box only
///   counts      4                int64, dense        written  voxels of WT, TC, ET, nested; voxels
///                                                             with a NaN or infinite logit
/// Floats are float32 or bfloat16; on a CUDA device, where all arrays must be, also float16.
void label(const LabelArgs& args, int n_threads, Stream stream);

void label_cpu(const LabelArgs& args, int n_threads);
void label_cuda(const LabelArgs& args, Stream stream);

/// The least float whose sigmoid reaches a threshold: comparing with it is comparing in double.
float least_logit(double threshold);

}  // namespace fastbts
