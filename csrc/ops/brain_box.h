#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor_view.h"

namespace fastbts {

struct BrainBox {
  Box bounds;                             // tight; all zero where there is no brain
  std::int64_t n_brain = 0;               // voxels where any modality is non-zero
  std::vector<std::int64_t> n_nonfinite;  // NaN or infinite voxels of each modality
  std::vector<std::int64_t> n_nonzero;    // non-zero voxels of each modality; NaN counts as non-zero
};

/// Finds the brain of a skull-stripped case: voxels where any modality is non-zero.
///   volume  (M, D, H, W)  any DType, any strides  read  intensities
/// One pass. Counts are exact, whatever n_threads.
BrainBox brain_box(const AnyView<4>& volume, int n_threads);

BrainBox brain_box_cpu(const AnyView<4>& volume, int n_threads);

}  // namespace fastbts
