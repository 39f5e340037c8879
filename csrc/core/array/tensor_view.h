#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/array/box.h"
#include "core/array/device.h"
#include "core/array/dtype.h"

namespace fastbts {

/// A borrowed N-d array. Strides count elements and may be zero or negative.
template <typename T, std::size_t N>
struct View {
  T* data = nullptr;
  Shape<N> shape{};
  Shape<N> strides{};
  Device device{};

  /// Address of the element with these leading indices; the missing ones are zero.
  template <typename... Index>
  T* at(Index... index) const {
    static_assert(sizeof...(index) <= N);
    std::int64_t offset = 0;
    std::size_t axis = 0;
    ((offset += static_cast<std::int64_t>(index) * strides[axis++]), ...);
    return data + offset;
  }

  /// One entry of the first axis.
  View<T, N - 1> slice(std::int64_t index) const {
    View<T, N - 1> view{at(index), {}, {}, device};
    std::copy(shape.begin() + 1, shape.end(), view.shape.begin());
    std::copy(strides.begin() + 1, strides.end(), view.strides.begin());
    return view;
  }

  /// The view with its last three axes in this order.
  View permuted(const std::array<std::size_t, 3>& order) const {
    View view = *this;
    for (std::size_t i = 0; i < 3; ++i) {
      view.shape[N - 3 + i] = shape[N - 3 + order[i]];
      view.strides[N - 3 + i] = strides[N - 3 + order[i]];
    }
    return view;
  }

  /// The part of the last three axes inside box.
  View cropped(const Box& box) const {
    View view = *this;
    for (std::size_t i = 0; i < 3; ++i) {
      view.data += box[i].begin * strides[N - 3 + i];
      view.shape[N - 3 + i] = box[i].size();
    }
    return view;
  }

  /// The view with one of its last three axes mirrored.
  View mirrored(std::size_t axis) const {
    View view = *this;
    view.data += std::max<std::int64_t>(0, shape[N - 3 + axis] - 1) * strides[N - 3 + axis];
    view.strides[N - 3 + axis] = -strides[N - 3 + axis];
    return view;
  }
};

/// A borrowed N-d array whose element type is known at run time; read-only unless Void is void.
template <std::size_t N, typename Void = const void>
struct AnyView {
  Void* data = nullptr;
  DType dtype{};
  Shape<N> shape{};
  Shape<N> strides{};
  Device device{};

  /// One entry of the first axis.
  AnyView<N - 1, Void> slice(std::int64_t index) const {
    AnyView<N - 1, Void> view{address(index * strides[0]), dtype, {}, {}, device};
    std::copy(shape.begin() + 1, shape.end(), view.shape.begin());
    std::copy(strides.begin() + 1, strides.end(), view.strides.begin());
    return view;
  }

  /// The part of the last three axes inside box.
  AnyView cropped(const Box& box) const {
    AnyView view = *this;
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      offset += box[i].begin * strides[N - 3 + i];
      view.shape[N - 3 + i] = box[i].size();
    }
    view.data = address(offset);
    return view;
  }

  /// Address of the element `offset` elements after the first.
  Void* address(std::int64_t offset) const {
    using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
    return static_cast<Byte*>(data) + offset * size_of(dtype);
  }

  template <typename T>
  auto as() const {
    using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;
    return View<Element, N>{static_cast<Element*>(data), shape, strides, device};
  }
};

/// The last three axes in the order of memory: largest stride first. Axes of one voxel come first,
/// as their stride means nothing.
template <std::size_t N>
std::array<std::size_t, 3> memory_order(const Shape<N>& shape, const Shape<N>& strides) {
  std::array<std::size_t, 3> order{0, 1, 2};
  const auto step = [&](std::size_t i) {
    return shape[N - 3 + i] == 1 ? std::numeric_limits<std::int64_t>::max()
                                 : std::abs(strides[N - 3 + i]);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return step(a) > step(b); });
  return order;
}

/// Calls fn(step); a step of 1 or -1 becomes a compile-time constant, so that the loop in fn can be
/// vectorised.
template <typename Fn>
void with_step(std::int64_t step, Fn&& fn) {
  switch (step) {
    case 1:
      return fn(std::integral_constant<std::int64_t, 1>{});
    case -1:
      return fn(std::integral_constant<std::int64_t, -1>{});
    default:
      return fn(step);
  }
}

}  // namespace fastbts
