#pragma once

#include <cstddef>
#include <cstdint>

#include "core/array/error.h"
#include "core/array/tensor_view.h"

/// Dense arrays: those whose elements follow each other in memory, the last axis running fastest.
namespace fastbts {

template <std::size_t N>
std::int64_t n_elements(const Shape<N>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t size : shape) n *= size;
  return n;
}

/// Throws unless the array is dense from axis `first` on. Axes of one entry may have any step; all
/// axes where there are no entries, as libraries differ in that.
template <typename AView>
void require_dense(const AView& view, const char* name, std::size_t first = 0) {
  if (n_elements(view.shape) == 0) return;
  std::int64_t step = 1;
  for (std::size_t axis = view.shape.size(); axis-- > first;) {
    require<InputError>(view.strides[axis] == step || view.shape[axis] <= 1, name,
                        ": expected a contiguous array on a CUDA device, got strides ",
                        view.strides, " of shape ", view.shape);
    step *= view.shape[axis];
  }
}

/// Throws unless an array, named as in "conv3d: out", has this shape.
template <std::size_t N>
void require_shape(const char* name, const Shape<N>& got, const Shape<N>& expected) {
  require<InputError>(got == expected, name, ": expected shape ", expected, ", got ", got);
}

/// Strides of a dense array.
template <std::size_t N>
Shape<N> dense_strides(const Shape<N>& shape) {
  Shape<N> strides{};
  std::int64_t step = 1;
  for (std::size_t axis = N; axis-- > 0; step *= shape[axis]) strides[axis] = step;
  return strides;
}

}  // namespace fastbts
