#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct ResampleArgs {
  AnyView<4> tensor;
  AnyView<4, void> out;
};

/// Resamples by linear interpolation, along D, then H, then W, in float32.
///   tensor  (C, D, H, W)     floats, rows dense  read     finite
///   out     (C, D', H', W')  as tensor           written  no part of tensor
/// The outer faces of the grid stay where they are; beyond the outermost voxel centres the edge
/// value is used. An axis of the same size keeps its values. The same bits for any n_threads.
/// Floats are float32; on a CUDA device, where all arrays must be, and dense, also float16 or
/// bfloat16.
void resample(const ResampleArgs& args, int n_threads, Stream stream);

void resample_cpu(const ResampleArgs& args, int n_threads);
void resample_cuda(const ResampleArgs& args, Stream stream);

}  // namespace fastbts
