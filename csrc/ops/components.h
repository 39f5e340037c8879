#pragma once

#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct ComponentsArgs {
  View<std::uint8_t, 3> labels;
  Box box;
  std::int64_t min_voxels;
  View<std::int64_t, 1> counts;
  View<std::int32_t, 2> scratch;
};

constexpr std::int64_t kComponentsCounts = 258;

/// Sets parts of less than min_voxels to 0. A part is a set of non-zero voxels, whatever their
/// labels, that touch by faces, edges or corners (26-connectivity) inside the box.
///   labels      (D, H, W)        uint8, any strides  read, written  inside the box only
///   box         3 x [begin, end) voxels of labels    read
///   min_voxels                   voxels, >= 0        read
///   counts      258              int64, dense        written        parts before and after, then
///                                                                   removed voxels of each label
///   scratch     (2, n)           int32, rows dense   written        on a CUDA device: n at least
///                                                                   the box's voxels, below 2^31
/// On a CUDA device all arrays must be there. Neither layout nor threads change the result: what a
/// part is does not depend on the order of voxels, and counts are integers. The CPU allocates about
/// 24 bytes for each run of non-zero voxels along the densest axis.
void components(const ComponentsArgs& args, int n_threads, Stream stream);

void components_cpu(const ComponentsArgs& args, int n_threads);
void components_cuda(const ComponentsArgs& args, Stream stream);

}  // namespace fastbts
