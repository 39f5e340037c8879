#pragma once

#include "core/array/dense.h"
#include "core/array/tensor_view.h"
#include "ops/label_parts.cuh"

namespace fastbts {

/// Labels for kernels, in the order of memory.
inline LabelBox label_box(const View<std::uint8_t, 3>& any_order) {
  const auto labels = any_order.permuted(memory_order(any_order.shape, any_order.strides));
  LabelBox box{labels.data, {}, {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    box.size[axis] = static_cast<int>(labels.shape[axis]);
    box.steps[axis] = labels.strides[axis];
  }
  return box;
}

}  // namespace fastbts
