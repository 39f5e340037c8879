#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/array/tensor_view.h"
#include "core/cuda/kernel.h"

/// Arrays as kernels take them. They cannot take View and AnyView, as the members of std::array are
/// not device code.
namespace fastbts {

template <typename T, std::size_t N>
struct Strided {
  T* data;
  std::int64_t shape[N];
  std::int64_t strides[N];

  template <typename... Index>
  FASTBTS_DEVICE T& at(Index... index) const {
    return data[offset(index...)];
  }

  template <typename... Index>
  FASTBTS_DEVICE std::int64_t offset(Index... index) const {
    std::int64_t sum = 0;
    int axis = 0;
    ((sum += static_cast<std::int64_t>(index) * strides[axis++]), ...);
    return sum;
  }
};

/// The same with an element type known at run time: memory latency hides the switch per
/// voxel, which saves compiling each kernel for a dozen types.
template <std::size_t N, typename Void = const void>
struct AnyStrided {
  Void* data;
  DType dtype;
  std::int64_t shape[N];
  std::int64_t strides[N];

  template <typename... Index>
  FASTBTS_DEVICE std::int64_t offset(Index... index) const {
    std::int64_t sum = 0;
    int axis = 0;
    ((sum += static_cast<std::int64_t>(index) * strides[axis++]), ...);
    return sum;
  }
};

template <typename T, std::size_t N>
Strided<T, N> strided(const View<T, N>& view) {
  Strided<T, N> result{view.data, {}, {}};
  std::copy(view.shape.begin(), view.shape.end(), result.shape);
  std::copy(view.strides.begin(), view.strides.end(), result.strides);
  return result;
}

template <std::size_t N, typename Void>
AnyStrided<N, Void> strided(const AnyView<N, Void>& view) {
  AnyStrided<N, Void> result{view.data, view.dtype, {}, {}};
  std::copy(view.shape.begin(), view.shape.end(), result.shape);
  std::copy(view.strides.begin(), view.strides.end(), result.strides);
  return result;
}

/// One element of any type; exact if float64 can represent it.
FASTBTS_DEVICE double load(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::kInt8:
      return static_cast<const std::int8_t*>(data)[i];
    case DType::kUint8:
      return static_cast<const std::uint8_t*>(data)[i];
    case DType::kInt16:
      return static_cast<const std::int16_t*>(data)[i];
    case DType::kUint16:
      return static_cast<const std::uint16_t*>(data)[i];
    case DType::kInt32:
      return static_cast<const std::int32_t*>(data)[i];
    case DType::kUint32:
      return static_cast<const std::uint32_t*>(data)[i];
    case DType::kInt64:
      return static_cast<double>(static_cast<const std::int64_t*>(data)[i]);
    case DType::kUint64:
      return static_cast<double>(static_cast<const std::uint64_t*>(data)[i]);
    case DType::kFloat32:
      return static_cast<const float*>(data)[i];
    case DType::kFloat64:
      return static_cast<const double*>(data)[i];
    case DType::kFloat16:
      return to_float(static_cast<const Half*>(data)[i]);
    case DType::kBfloat16:
      return to_float(static_cast<const Bfloat16*>(data)[i]);
  }
  return 0;
}

/// Rounds a value to one of the float types.
FASTBTS_DEVICE void store(void* data, DType dtype, std::int64_t i, float value) {
  switch (dtype) {
    case DType::kFloat16:
      static_cast<Half*>(data)[i] = from_float<Half>(value);
      return;
    case DType::kBfloat16:
      static_cast<Bfloat16*>(data)[i] = from_float<Bfloat16>(value);
      return;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

/// Splits the number of a row into indices along N axes of these sizes, the last one fastest.
template <std::size_t N>
struct Row {
  std::int64_t index[N];

  FASTBTS_DEVICE Row(std::uint32_t row, const std::int64_t* shape) {
    for (int axis = N - 1; axis >= 0; --axis) {
      const auto n = static_cast<std::uint32_t>(shape[axis]);
      index[axis] = row % n;
      row /= n;
    }
  }
};

/// The first row of this thread, and the step to its next one. All lanes of a warp share a row.
FASTBTS_DEVICE std::uint32_t first_row() { return blockIdx.x * blockDim.y + threadIdx.y; }
FASTBTS_DEVICE std::uint32_t row_step() { return gridDim.x * blockDim.y; }

}  // namespace fastbts
