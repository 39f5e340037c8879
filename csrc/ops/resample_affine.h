#pragma once

#include <array>

#include "core/array/stream.h"
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

/// Resamples onto a grid that lies anyhow in the tensor's: oblique, anisotropic, shifted.
///   tensor   (C, D, H, W)     real, any strides               read     finite
///   map      (3, 4)           finite                          read     voxel of out -> voxel of
///   tensor, centres at 0, 1 nearest                                                            the
///   nearest voxel's value; else trilinear outside value of what lies beyond the outer faces out
///   (C, D', H', W')  floats, or as tensor where that is uint8 and the nearest is taken, any
///   strides  written
/// Between the outermost centres and the outer faces the edge value holds. Positions are float64,
/// values interpolated in float32 along D, then H, then W: the same bits on every device, whatever
/// n_threads. Floats are float32; on a CUDA device, where both arrays must be, also float16 or
/// bfloat16.
void resample_affine(const ResampleAffineArgs& args, int n_threads, Stream stream);

void resample_affine_cpu(const ResampleAffineArgs& args, int n_threads);
void resample_affine_cuda(const ResampleAffineArgs& args, Stream stream);

}  // namespace fastbts
