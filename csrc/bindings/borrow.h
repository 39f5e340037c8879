#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/source.h"
#include "core/array/tensor_view.h"

namespace fastbts {

enum class Rows { kAny, kDense, kDenseOnCpu };

template <typename T>
inline constexpr DType kDType = std::is_same_v<T, float>          ? DType::kFloat32
                                : std::is_same_v<T, double>       ? DType::kFloat64
                                : std::is_same_v<T, std::int32_t> ? DType::kInt32
                                : std::is_same_v<T, std::int64_t> ? DType::kInt64
                                                                  : DType::kUint8;

inline std::string written(const Device& device) {
  return device.is_cuda ? "cuda:" + std::to_string(device.index) : "the CPU";
}

/// Borrows the arrays of one call with their strides, or refuses them; they must all be on one
/// device. Nothing is converted or copied. Views are valid as long as the borrower, which must be
/// destroyed with the GIL held.
class Borrower {
 public:
  /// `op` begins the error messages; arrays on a CUDA device are requested for this stream.
  Borrower(const char* op, Stream stream) : op_(op), stream_(stream) {}

  /// An array of one element type; if T is not const, the array must be writable.
  template <typename T, std::size_t N>
  View<T, N> array(const py::object& object, const char* name, const char* expected,
                   Rows rows = Rows::kDense) {
    const Source& source = take(object, name, expected, N);
    refuse_unless(source.dtype == kDType<std::remove_const_t<T>>, source, "");
    check_layout(source, rows, !std::is_const_v<T>);
    return fill(View<T, N>{static_cast<T*>(source.data)}, source);
  }

  /// An array of one element type, or an empty view for None.
  template <typename T, std::size_t N>
  View<T, N> optional(const std::optional<py::object>& object, const char* name,
                      const char* expected) {
    return object ? array<T, N>(*object, name, expected) : View<T, N>{};
  }

  /// An image of any real element type and any strides. Void as in AnyView.
  template <std::size_t N, typename Void = const void>
  AnyView<N, Void> any(const py::object& object, const char* name, const char* expected) {
    const Source& source = take(object, name, expected, N);
    refuse_unless(source.dtype.has_value() && (source.device.is_cuda || !is_half(*source.dtype)),
                  source, "");
    check_layout(source, Rows::kAny, !std::is_const_v<Void>);
    return fill(AnyView<N, Void>{source.data, *source.dtype}, source);
  }

  /// A network tensor: float32, on a device also float16 or bfloat16.
  template <std::size_t N, typename Void = const void>
  AnyView<N, Void> floats(const py::object& object, const char* name, const char* axes,
                          Rows rows = Rows::kDense) {
    const Source& source = take(object, name, std::string("float32 ") + axes, N);
    const bool half = source.device.is_cuda && source.dtype && is_half(*source.dtype);
    refuse_unless(half || source.dtype == DType::kFloat32, source, "");
    check_layout(source, rows, !std::is_const_v<Void>);
    return fill(AnyView<N, Void>{source.data, *source.dtype}, source);
  }

  /// The same of any strides; on the CPU also int8, and bfloat16 as uint16, as NumPy lacks it.
  template <std::size_t N, typename Void = const void>
  AnyView<N, Void> numbers(const py::object& object, const char* name, const char* axes,
                           Rows rows = Rows::kAny) {
    const Source& source = take(object, name, std::string("float32 ") + axes, N);
    const DType dtype = source.dtype == DType::kUint16 ? DType::kBfloat16 : *source.dtype;
    const bool small = source.device.is_cuda ? is_half(*source.dtype)
                                             : dtype == DType::kBfloat16 || dtype == DType::kInt8;
    refuse_unless(small || dtype == DType::kFloat32, source, "");
    check_layout(source, rows, !std::is_const_v<Void>);
    return fill(AnyView<N, Void>{source.data, dtype}, source);
  }

  /// An array of any rank and real element type, as its owner describes it.
  const Source& described_array(const py::object& object, const char* name) {
    name_ = std::string(op_) + ": " + name;
    expected_ = "an array of real numbers";
    const Source& source = described(object);
    refuse_unless(!source.flaw && source.dtype.has_value(), source, source.flaw ? source.flaw : "");
    return source;
  }

 private:
  static bool is_half(DType dtype) { return dtype == DType::kFloat16 || dtype == DType::kBfloat16; }

  /// What every op needs: an array of this rank, on the device of the others, no axis too long.
  const Source& take(const py::object& object, const char* name, std::string expected,
                     std::size_t rank) {
    name_ = std::string(op_) + ": " + name;
    expected_ = std::move(expected);
    const Source& source = described(object);
    if (source.flaw) refuse_unless(false, source, source.flaw);
    refuse_unless(source.dtype.has_value() && source.shape.size() == rank, source, "");
    for (const auto n : source.shape) {
      refuse_unless(n <= std::numeric_limits<std::int32_t>::max(), source,
                    ", with an axis too long");
    }
    check_device(source.device);
    return source;
  }

  const Source& described(const py::object& object) {
    std::optional<Source> source;
    try {
      source = source_of(object, stream_);
    } catch (const py::error_already_set& error) {
      throw InputError(name_ + ": expected " + expected_ + ", got " + type_of(object) +
                       " that cannot be borrowed: " + error.what());
    } catch (const py::cast_error&) {
      throw InputError(name_ + ": expected " + expected_ + ", got " + type_of(object) +
                       " that describes itself wrongly, by DLPack or __cuda_array_interface__");
    } catch (const DeviceError& error) {
      throw DeviceError(name_ + ": " + error.what());
    }
    if (!source) throw InputError(name_ + ": expected " + expected_ + ", got " + type_of(object));
    sources_.push_back(*std::move(source));
    return sources_.back();
  }

  static std::string type_of(const py::object& object) {
    return "a " + std::string(py::str(py::type::of(object).attr("__name__")));
  }

  /// "InputError: blend: logits: expected float32 (B, K, d, h, w), got float64 of shape (1, 2, 3)"
  /// and why, unless ok.
  void refuse_unless(bool ok, const Source& source, const char* why) const {
    if (ok) return;
    const std::string type = py::str(source.type),
                      shape = py::str(py::tuple(py::cast(source.shape)));
    throw InputError(name_ + ": expected " + expected_ + ", got " + type + " of shape " + shape +
                     why);
  }

  void check_device(const Device& device) {
    if (!device_) device_ = device;
    require<InputError>(device == *device_, name_, ": expected an array on ", written(*device_),
                        " as the first one, got one on ", written(device));
  }

  void check_layout(const Source& source, Rows rows, bool written_to) const {
    const bool dense =
        source.strides.back() == 1 || source.shape.back() == 1 || is_empty(source.shape);
    const bool any = rows == Rows::kAny || (rows == Rows::kDenseOnCpu && source.device.is_cuda);
    refuse_unless(any || dense, source,
                  ", whose last axis is not contiguous; use np.ascontiguousarray(x)");
    refuse_unless(source.writable || !written_to, source, ", which is read-only");
  }

  template <typename AView>
  static AView fill(AView view, const Source& source) {
    std::copy(source.shape.begin(), source.shape.end(), view.shape.begin());
    std::copy(source.strides.begin(), source.strides.end(), view.strides.begin());
    view.device = source.device;
    return view;
  }

  const char* op_;
  Stream stream_;
  std::optional<Device> device_;  // of the first array
  std::string name_, expected_;   // of the current array
  std::vector<Source> sources_;   // what the views borrow from
};

}  // namespace fastbts
