#pragma once

#include "core/stream.h"
#include "core/tensor_view.h"

namespace fastbts {

struct ResampleArgs {
  View<const float, 4> tensor;
  View<float, 4> out;
};

/// Resamples by linear interpolation, along D, then H, then W, in float32.
///   tensor  (C, D, H, W)     float32, rows dense  read     finite
///   out     (C, D', H', W')  float32, rows dense  written  no part of tensor
/// The outer faces of the grid stay where they are; beyond the outermost voxel centres the edge value holds. An axis of
/// the same size keeps its values. Two runs give the same bits, whatever n_threads.
void resample(const ResampleArgs& args, int n_threads);

void resample_cpu(const ResampleArgs& args, int n_threads);
void resample_cuda(const ResampleArgs& args, Stream stream);  // arrays on a CUDA device, dense

}  // namespace fastbts
