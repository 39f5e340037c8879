#pragma once

#include <cstdint>

#include "core/array/stream.h"
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
///   counts      258              int64, dense        written  parts before, parts after, then
///   voxels removed by label scratch     (2, n)           int32, rows dense   written  on a CUDA
///   device, where all arrays must be: n voxels of
///                                                             the box at least, less than 2^31
/// What a part is does not depend on the order of voxels, and counts are integers: neither layout
/// nor threads change the result. On the CPU scratch is of its own, about 24 bytes for each run of
/// non-zero voxels along the densest axis.
void components(const ComponentsArgs& args, int n_threads, Stream stream);

void components_cpu(const ComponentsArgs& args, int n_threads);
void components_cuda(const ComponentsArgs& args, Stream stream);

}  // namespace fastbts
