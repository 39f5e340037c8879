#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/array/dense.h"
#include "core/array/tensor_view.h"

namespace fastbts {

/// A volume with its last three axes as they are in memory, the fastest last, all read forwards, so
/// that the lanes of a warp read one piece of memory.
struct MemoryOrder {
  explicit MemoryOrder(const AnyView<4>& given)
      : volume(given), axes(memory_order(given.shape, given.strides)) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const std::int64_t n = given.shape[axes[i] + 1], step = given.strides[axes[i] + 1];
      mirrored[i] = step < 0;
      volume.shape[i + 1] = n;
      volume.strides[i + 1] = std::abs(step);
      if (mirrored[i]) offset += std::max<std::int64_t>(0, n - 1) * step;
    }
    volume.data = given.address(offset);
  }

  /// A dense array of the volume's voxels in this order, with the axes of the volume as given.
  template <typename T>
  View<T, 3> as_given(T* dense) const {
    View<T, 3> view{dense, {}, {}, volume.device};
    const Shape<3> shape{volume.shape[1], volume.shape[2], volume.shape[3]};
    const Shape<3> steps = dense_strides(shape);
    for (std::size_t i = 0; i < 3; ++i) {
      view.shape[axes[i]] = shape[i];
      view.strides[axes[i]] = mirrored[i] ? -steps[i] : steps[i];
      if (mirrored[i]) view.data += std::max<std::int64_t>(0, shape[i] - 1) * steps[i];
    }
    return view;
  }

  AnyView<4> volume;
  std::array<std::size_t, 3> axes;  // which axes of the given volume these are
  std::array<bool, 3> mirrored{};   // and which of these ran backwards
};

}  // namespace fastbts
