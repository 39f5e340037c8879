#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct PackArgs {
  AnyView<5> volume;
  int patch;
  View<const float, 2> gate;  // null: no fusion
  View<const float, 1> gate_bias, background;
  float step;
  AnyView<5, void> out;
  View<float, 3> scratch;
};

/// The network's input: blocks of p^3 voxels become channels, and the pixel fusion. Where a voxel
/// of modality m is 0 it becomes background[m], elsewhere it is multiplied by the modality's gain
///   2 sigmoid(gate_bias[m] + sum of gate[m, n] over the modalities n that are present),
/// those with a voxel other than 0 among the first ones of the blocks.
///   volume      (B, M, D, H, W)            float32, rows dense  read     D, H, W multiples of p
///   patch       p: 1 or 2
///   gate        (M, M)                     float32, rows dense  read     or none: no fusion
///   gate_bias   (M)                        float32, dense       read     as gate
///   background  (M)                        float32, dense       read     as gate
///   step        of int8: out is the value / step, to the nearest, ties to even, -128 to 127
///   out         (B, D/p, H/p, W/p, M p^3)  any strides          written  channel (m p^3 + child)
///   scratch     (2, B, M)                  float32, dense       written  as gate
/// On the CPU out is float32, bfloat16 or int8, on a CUDA device float16. Fastest with W dense.
void pack(const PackArgs& args, int n_threads, Stream stream);

void pack_cpu(const PackArgs& args, int n_threads);
void pack_cuda(const PackArgs& args, Stream stream);

}  // namespace fastbts
