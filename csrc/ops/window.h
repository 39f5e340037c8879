#pragma once

#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct WindowArgs {
  AnyView<4> tensor;
  View<const std::int32_t, 2> origins;
  AnyView<5, void> out;
};

/// Cuts windows out of a tensor.
///   tensor   (M, D, H, W)     floats, rows dense          read
///   origins  (B, 3)           int32, voxels, any strides  read     window b covers [o, o + size),
///                                                                  partly outside tensor or not
///   out      (B, M, d, h, w)  floats, any strides         written  zero outside the tensor
/// Floats are float32; on a CUDA device, where all arrays must be, also float16 or bfloat16, and
/// there out may be of another float type than tensor: values are rounded to it. Strides of out
/// make its layout, such as channels last.
void window(const WindowArgs& args, int n_threads, Stream stream);

void window_cpu(const WindowArgs& args, int n_threads);
void window_cuda(const WindowArgs& args, Stream stream);

}  // namespace fastbts
