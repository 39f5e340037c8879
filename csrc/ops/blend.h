#pragma once

#include <array>
#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct BlendArgs {
  AnyView<5> logits;
  View<const std::int32_t, 2> origins;
  std::array<View<const float, 2>, 3> weights;
  View<float, 4> total;
};

/// Adds weighted window logits into a volume, in float32:
///   total[k, o + p] += wd[b, p0] * wh[b, p1] * ww[b, p2] * logits[b, k, p]
///   logits   (B, K, d, h, w)         floats, rows dense   read      K tumour regions
///   origins  (B, 3)                  int32, voxels        read      window b covers [o, o + size),
///                                                                   partly outside total or not
///   weights  (B, d), (B, h), (B, w)  float32, rows dense  read      their products sum to 1 over
///                                                                   all windows
///   total    (K, D, H, W)            float32, rows dense  added to
/// Each voxel of total adds its windows in the order of b: the same bits for any n_threads. Floats
/// are float32; on a CUDA device, where all arrays must be, also float16 or bfloat16.
void blend(const BlendArgs& args, int n_threads, Stream stream);

void blend_cpu(const BlendArgs& args, int n_threads);
void blend_cuda(const BlendArgs& args, Stream stream);

}  // namespace fastbts
