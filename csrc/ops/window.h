#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace fastbts {

struct WindowArgs {
  View<const float, 4> tensor;
  View<const std::int32_t, 2> origins;
  View<float, 5> out;
};

/// Cuts windows out of a tensor.
///   tensor   (M, D, H, W)     float32, rows dense        read
///   origins  (B, 3)           int32, voxels, any strides read     window b covers [o, o + size); may reach outside
///   out      (B, M, d, h, w)  float32, rows dense        written  zero outside the tensor
void window(const WindowArgs& args, int n_threads);

void window_cpu(const WindowArgs& args, int n_threads);

}  // namespace fastbts
