#pragma once

#include <array>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

/// Rows of a matrix that takes a voxel (d, h, w, 1) of one grid to its place in the other's voxels.
using AffineMap = std::array<std::array<double, 4>, 3>;

struct ResampleAffineArgs {
  AnyView<4> tensor;
  AffineMap map;
  bool nearest;
  float outside;
  AnyView<4, void> out;
};

/// Resamples onto a grid of any position and orientation in the tensor's.
///   tensor   (C, D, H, W)     real, any strides    read     finite
///   map      (3, 4)           finite               read     voxel of out -> voxel of tensor, whose
///                                                           centres are at 0, 1, ...
///   nearest                                        read     the nearest voxel; else trilinear
///   outside                                        read     value beyond the outer faces
///   out      (C, D', H', W')  floats, any strides  written  or uint8, if nearest of a uint8 tensor
/// Between the outermost centres and the outer faces the edge value is used. Positions are float64,
/// values interpolated in float32 along D, then H, then W: the same bits on every device, for any
/// n_threads. Floats are float32; on a CUDA device, where both arrays must be, also float16 or
/// bfloat16.
void resample_affine(const ResampleAffineArgs& args, int n_threads, Stream stream);

void resample_affine_cpu(const ResampleAffineArgs& args, int n_threads);
void resample_affine_cuda(const ResampleAffineArgs& args, Stream stream);

}  // namespace fastbts
