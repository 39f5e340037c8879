#pragma once

#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct BrainBoxArgs {
  AnyView<4> volume;
  View<std::int64_t, 1> found;
};

/// Finds the brain of a skull-stripped case: voxels where any modality is non-zero.
///   volume  (M, D, H, W)  any DType, any strides  read     intensities
///   found   7 + 2M        int64, dense            written  begin, end along D, H, W (tight; zeros
///                                                          without brain); number of brain voxels;
///                                                          non-finite voxels of each modality;
///                                                          non-zero voxels of each, NaN included
/// One pass. Counts are exact, for any n_threads.
void brain_box(const BrainBoxArgs& args, int n_threads, Stream stream);

void brain_box_cpu(const BrainBoxArgs& args, int n_threads);
void brain_box_cuda(const BrainBoxArgs& args, Stream stream);

}  // namespace fastbts
