#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct ActivateArgs {
  AnyView<5> x;
  View<const float, 3> affine;  // null: a copy
  AnyView<5, void> out;
};

/// out = leaky_relu(x affine[b, 0, c] + affine[b, 1, c]), slope 0.01, or a copy of x: for readers
/// that do not apply the normalisation themselves, and into another memory layout or float type.
///   x       (B, D, H, W, C)  floats, any strides  read
///   affine  (B, 2, C)        float32, dense       read     or none
///   out     (B, D, H, W, C)  floats, any strides  written
/// Floats are float32, on a CUDA device each float32 or float16.
void activate(const ActivateArgs& args, int n_threads, Stream stream);

void activate_cpu(const ActivateArgs& args, int n_threads);
void activate_cuda(const ActivateArgs& args, Stream stream);

}  // namespace fastbts
