#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct UnpackArgs {
  AnyView<5> x;
  int patch;
  View<float, 5> out;
};

/// The inverse of `pack` without fusion: channels become blocks of p^3 voxels.
///   x      (B, D/p, H/p, W/p, K p^3)  float32 or bfloat16, any strides  read  as out of `pack`
///   patch  p: 1 or 2
///   out    (B, K, D, H, W)            float32, rows dense               written
/// On the CPU only.
void unpack(const UnpackArgs& args, int n_threads, Stream stream);

void unpack_cpu(const UnpackArgs& args, int n_threads);

}  // namespace fastbts
