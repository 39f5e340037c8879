#pragma once

#include <array>
#include <cstdint>

#include "core/stream.h"
#include "core/tensor_view.h"

namespace fastbts {

struct ComponentsArgs {
  View<std::uint8_t, 3> labels;
  Box box;
  std::int64_t min_voxels;
};

/// What small-part removal found and did.
struct PartCounts {
  std::int64_t n_before = 0, n_after = 0;        // connected parts inside the box
  std::array<std::int64_t, 256> n_removed = {};  // voxels set to 0, by the label they had
};

/// Sets parts of less than min_voxels to 0. A part is a set of non-zero voxels, whatever their labels, that touch by
/// faces, edges or corners (26-connectivity) inside the box.
///   labels      (D, H, W)        uint8, any strides  read, written  inside the box only
///   box         3 x [begin, end) voxels of labels    read
///   min_voxels                   voxels, >= 0        read
/// Scratch is bounded by the box: about 24 bytes for each run of non-zero voxels along the densest axis. What a part is
/// does not depend on the order of voxels, so neither layout nor n_threads change the result.
PartCounts components(const ComponentsArgs& args, int n_threads);

PartCounts components_cpu(const ComponentsArgs& args, int n_threads);

constexpr std::int64_t kComponentsCounts = 258;

/// What the kernels work in, on the device.
///   parent, n_in_part  (voxels of the box)   int32   written
///   counts             (kComponentsCounts)   uint64  written  parts before, parts after, then voxels removed by label
struct ComponentsScratch {
  int *parent, *n_in_part;
  unsigned long long* counts;
};

/// Labels on a CUDA device, any strides. Integer atomics only: the same result whatever the order of threads.
void components_cuda(const ComponentsArgs& args, const ComponentsScratch& scratch, Stream stream);

}  // namespace fastbts
