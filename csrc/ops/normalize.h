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
  int patch;
  View<const float, 2> gate;  // null: no fusion
  View<const float, 1> gate_bias, background;
  float step;
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
///   patch        p: 1, or 2 for a packed tensor (M p^3, D'/p, H'/p, W'/p), on the CPU
///   gate, gate_bias, background, step                            read     as in `pack`, or none
///   tensor       (M, D', H', W')  floats, rows dense             written  all of it; the box is at
///                                                                         (size - box) / 2
///   stats        (M, 4)           float64, rows dense            written  lo, hi; mean, std
///                                                                         of the clipped values
///   scratch      n                uint8, dense                   written  on a CUDA device: at
///                                                                         least normalize_scratch
/// On the CPU the tensor is float32, bfloat16 or int8, with what `pack` makes of its float32
/// voxels; on a CUDA device, where all arrays must be, float32, float16 or bfloat16. There a brain
/// voxel that is NaN or infinite makes mean and std of its modality NaN; on the CPU it throws. A
/// modality that is constant over the brain has std 0 and becomes 0. Mean and std are summed in
/// float64 in an order that depends on the layout of volume, not on n_threads.
void normalize(const NormalizeArgs& args, int n_threads, Stream stream);

void normalize_cpu(const NormalizeArgs& args, int n_threads);
void normalize_cuda(const NormalizeArgs& args, Stream stream);

/// Bytes of scratch that a CUDA device needs for a box of this many voxels.
std::int64_t normalize_scratch(std::int64_t n_modalities, std::int64_t n_voxels);

/// The box, placed in the middle of the tensor.
Box centred(const Box& box, const Shape<4>& tensor);

}  // namespace fastbts
