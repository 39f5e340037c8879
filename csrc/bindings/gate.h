#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "core/tensor_view.h"

/// The gate: borrows a NumPy array with its strides, or refuses it. Nothing is converted or copied.
namespace fastbts::gate {

namespace py = pybind11;

enum class Rows { kAny, kDense };

/// "float64 of shape (4, 155, 240, 240)" or "a list": what was got, for messages.
inline std::string described(const py::object& object) {
  if (!py::isinstance<py::array>(object)) return "a " + std::string(py::str(py::type::of(object).attr("__name__")));
  return std::string(py::str(object.attr("dtype"))) + " of shape " + std::string(py::str(object.attr("shape")));
}

inline std::optional<DType> dtype_of(const py::dtype& dtype) {
  const auto is = [&](char kind, py::ssize_t size) { return dtype.kind() == kind && dtype.itemsize() == size; };
  if (is('i', 1)) return DType::kInt8;
  if (is('u', 1)) return DType::kUint8;
  if (is('i', 2)) return DType::kInt16;
  if (is('u', 2)) return DType::kUint16;
  if (is('i', 4)) return DType::kInt32;
  if (is('u', 4)) return DType::kUint32;
  if (is('i', 8)) return DType::kInt64;
  if (is('u', 8)) return DType::kUint64;
  if (is('f', 4)) return DType::kFloat32;
  if (is('f', 8)) return DType::kFloat64;
  return std::nullopt;
}

/// An array as NumPy describes it, checked for what every op needs: rank, byte order, alignment, sane sizes.
template <std::size_t N>
struct Checked {
  py::array array;
  DType dtype;
  Shape<N> shape{}, strides{};
};

template <std::size_t N>
Checked<N> check(const py::object& object, const char* name, const std::string& expected) {
  const auto refuse = [&](bool ok, const char* why) {
    if (!ok) throw InputError(name + (": expected " + expected) + ", got " + described(object) + why);
  };
  refuse(py::isinstance<py::array>(object), "");
  const auto array = py::reinterpret_borrow<py::array>(object);
  const char order = array.dtype().byteorder();
  refuse(order == '=' || order == '|', ", which is not in native byte order; use x.astype(x.dtype.newbyteorder('='))");
  const auto dtype = dtype_of(array.dtype());
  refuse(array.ndim() == static_cast<py::ssize_t>(N) && dtype.has_value(), "");
  // Strides then are whole elements: on 64-bit machines these types are aligned to their size.
  refuse((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0, ", which is not aligned; use x.copy()");
  Checked<N> checked{array, *dtype, {}, {}};
  for (std::size_t i = 0; i < N; ++i) {
    checked.shape[i] = array.shape(static_cast<py::ssize_t>(i));
    checked.strides[i] = array.strides(static_cast<py::ssize_t>(i)) / array.itemsize();
    refuse(checked.shape[i] <= std::numeric_limits<std::int32_t>::max(), ", with an axis too long");
  }
  return checked;
}

template <typename T>
inline constexpr DType kDType = std::is_same_v<T, float>          ? DType::kFloat32
                                : std::is_same_v<T, double>       ? DType::kFloat64
                                : std::is_same_v<T, std::int32_t> ? DType::kInt32
                                                                  : DType::kUint8;

/// Borrows an array of one element type; if T is not const, the array must be writable.
template <typename T, std::size_t N>
View<T, N> borrow(const py::object& object, const char* name, const std::string& expected, Rows rows = Rows::kDense) {
  using Element = std::remove_const_t<T>;
  const Checked<N> checked = check<N>(object, name, expected);
  const auto refuse = [&](bool ok, const char* why) {
    if (!ok) throw InputError(name + (": expected " + expected) + ", got " + described(object) + why);
  };
  refuse(checked.dtype == kDType<Element>, "");
  const bool dense = checked.strides[N - 1] == 1 || checked.shape[N - 1] == 1 || checked.array.size() == 0;
  refuse(rows == Rows::kAny || dense, ", whose last axis is not contiguous; use np.ascontiguousarray(x)");
  if constexpr (std::is_const_v<T>) {
    return {static_cast<T*>(checked.array.data()), checked.shape, checked.strides};
  } else {
    refuse(checked.array.writeable(), ", which is read-only");
    return {static_cast<T*>(const_cast<void*>(checked.array.data())), checked.shape, checked.strides};
  }
}

/// Borrows an image of any real element type.
template <std::size_t N>
AnyView<N> borrow_any(const py::object& object, const char* name, const std::string& expected) {
  const Checked<N> checked = check<N>(object, name, expected);
  return {checked.array.data(), checked.dtype, checked.shape, checked.strides};
}

}  // namespace fastbts::gate
