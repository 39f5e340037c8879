#pragma once

#include <array>
#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct NormalizeArgs {
  AnyView<4> volume;
  Box box;
  std::array<double, 2> percentiles;
  AnyView<4, void> tensor;
  View<double, 2> stats;
  View<std::uint8_t, 1> scratch;
};

/// Clips each modality at percentiles of its brain voxels, z-scores it, and centres the brain box
/// in a zero tensor. Brain voxels are those where any modality is non-zero.
///   volume       (M, D, H, W)     any DType, any strides         read     finite
///   box          3 x [begin, end) voxels of volume               read     all else is ignored
///   percentiles  2                per cent, 0 <= lo < hi <= 100  read     inverted CDF: each is a
///                                                                         value of the image
///   tensor       (M, D', H', W')  floats, rows dense             written  all of it; the box is at
///                                                                         (size - box) / 2
///   stats        (M, 4)           float64, rows dense            written  lo, hi; mean, std
///                                                                         of the clipped values
///   scratch      n                uint8, dense                   written  on a CUDA device: at
///                                                                         least normalize_scratch
/// Floats are float32; on a CUDA device, where all arrays must be, also float16 or bfloat16. There
/// a brain voxel that is NaN or infinite makes mean and std of its modality NaN; on the CPU it
/// throws. A modality that is constant over the brain has std 0 and becomes 0. Mean and std are
/// summed in float64 in an order that depends on the layout of volume, not on n_threads.
void normalize(const NormalizeArgs& args, int n_threads, Stream stream);

void normalize_cpu(const NormalizeArgs& args, int n_threads);
void normalize_cuda(const NormalizeArgs& args, Stream stream);

/// Bytes of scratch that a CUDA device needs for a box of this many voxels.
std::int64_t normalize_scratch(std::int64_t n_modalities, std::int64_t n_voxels);

/// The box, placed in the middle of the tensor.
Box centred(const Box& box, const Shape<4>& tensor);

}  // namespace fastbts
