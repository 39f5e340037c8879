#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/dlpack.h"
#include "core/array/dtype.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

/// Descriptions of arrays by NumPy, DLPack capsules or __cuda_array_interface__. Nothing is copied.
namespace fastbts {

namespace py = pybind11;

/// An array as its owner describes it, not yet checked.
struct Source {
  py::object owner;  // keeps the memory and its description alive
  void* data = nullptr;
  py::object type;  // for messages, as text; that takes longer than all else, so not made here
  std::optional<DType> dtype;                    // none for types that no op takes
  std::vector<std::int64_t> shape{}, strides{};  // in elements
  Device device{};
  bool writable = false;
  const char* flaw = nullptr;  // why no op can use it
};

/// DType of a kind as in NumPy ('i', 'u', 'f', and 'b' for bfloat16) and a number of bytes.
inline std::optional<DType> dtype_of(char kind, std::int64_t n_bytes) {
  const auto is = [&](char k, std::int64_t n) { return kind == k && n_bytes == n; };
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
  if (is('f', 2)) return DType::kFloat16;
  if (is('b', 2)) return DType::kBfloat16;
  return std::nullopt;
}

inline std::vector<std::int64_t> row_major(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

inline bool is_empty(const std::vector<std::int64_t>& shape) {
  return std::find(shape.begin(), shape.end(), 0) != shape.end();
}

inline bool has_negative(const std::vector<std::int64_t>& shape) {
  return std::any_of(shape.begin(), shape.end(), [](std::int64_t n) { return n < 0; });
}

inline Source from_numpy(const py::array& array) {
  const py::dtype dtype = array.dtype();
  Source source{array, const_cast<void*>(array.data()), dtype,
                dtype_of(dtype.kind(), dtype.itemsize())};
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    source.shape.push_back(array.shape(i));
    source.strides.push_back(array.strides(i) / std::max<py::ssize_t>(1, array.itemsize()));
  }
  source.writable = array.writeable();
  // nibabel's arrays name the order of their file, also where it is this machine's.
  const bool native = dtype.attr("isnative").cast<bool>();
  // Aligned arrays have strides of whole elements: on 64-bit machines these types are aligned to
  // their size.
  const bool aligned = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (!aligned) source.flaw = ", which is not aligned; use x.copy()";
  if (!native)
    source.flaw = ", which is not in native byte order; use x.astype(x.dtype.newbyteorder('='))";
  return source;
}

/// Requests a capsule, of a device array for this stream. Throws what its owner raises.
inline py::object capsule_of(const py::object& array, const Device& device, Stream stream) {
  py::dict options;
  options["max_version"] = py::make_tuple(1, 0);
  if (device.is_cuda)
    options["stream"] = stream.handle ? reinterpret_cast<std::intptr_t>(stream.handle) : 1;
  const py::object method = array.attr("__dlpack__");
  try {
    return method(**options);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  options.attr("pop")("max_version");  // libraries before DLPack 1.0 do not know it
  return method(**options);
}

inline std::string type_name(const DLDataType& type) {
  const auto named = [&](const char* name) { return name + std::to_string(type.bits); };
  switch (type.code) {
    case dlpack::kInt:
      return named("int");
    case dlpack::kUint:
      return named("uint");
    case dlpack::kFloat:
      return named("float");
    case dlpack::kBfloat:
      return named("bfloat");
    case dlpack::kBool:
      return "bool";
    default:
      return "DLPack type " + std::to_string(type.code) + " of " + std::to_string(type.bits) +
             " bits";
  }
}

inline std::optional<DType> dtype_of(const DLDataType& type) {
  if (type.lanes != 1 || type.code > dlpack::kBfloat) return std::nullopt;
  return dtype_of("iuf?b"[type.code], type.bits / 8);
}

inline Source from_tensor(const py::object& capsule, const DLTensor& tensor, bool writable) {
  Source source{capsule, static_cast<char*>(tensor.data) + tensor.byte_offset,
                py::str(type_name(tensor.dtype)), dtype_of(tensor.dtype)};
  source.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  source.strides = tensor.strides
                       ? std::vector<std::int64_t>(tensor.strides, tensor.strides + tensor.ndim)
                       : row_major(source.shape);
  source.writable = writable;
  const auto n_bytes = std::max<std::uintptr_t>(1, tensor.dtype.bits / 8);
  if (has_negative(source.shape)) source.flaw = ", which has a negative size";
  if (!tensor.data && !is_empty(source.shape)) source.flaw = ", which has no memory";
  if (reinterpret_cast<std::uintptr_t>(source.data) % n_bytes)
    source.flaw = ", which is not aligned; copy it";
  return source;
}

/// The capsule stays unconsumed: its own destructor releases the array after the call.
inline Source from_capsule(const py::object& capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* managed = static_cast<DLManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major == 1) {
      return from_tensor(capsule, managed->dl_tensor, (managed->flags & dlpack::kReadOnly) == 0);
    }
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    return from_tensor(
        capsule,
        static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->dl_tensor,
        true);
  }
  Source source{capsule, nullptr, py::str("an unknown type"), std::nullopt};
  source.flaw = ", which is no capsule of DLPack 1 or older";
  return source;
}

inline Source from_dlpack(const py::object& array, Stream stream) {
  const auto [type, index] =
      array.attr("__dlpack_device__")().cast<std::pair<std::int32_t, std::int32_t>>();
  const bool is_cuda = type == dlpack::kCuda || type == dlpack::kCudaManaged;
  require<DeviceError>(is_cuda || type == dlpack::kCpu || type == dlpack::kCudaHost,
                       "expected an array on the CPU or a CUDA device, got one on DLPack device ",
                       type);
  const Device device{is_cuda, is_cuda ? index : 0};
  py::object capsule;
  const auto request = [&](auto...) { capsule = capsule_of(array, device, stream); };
  on_device(device, request, request);  // its owner takes the current stream of the current device
  Source source = from_capsule(capsule);
  source.device = device;
  return source;
}

/// Sets the strides from bytes, or the flaw.
inline void set_strides(Source& source, const py::object& bytes, std::int64_t n_bytes) {
  source.strides = row_major(source.shape);
  if (bytes.is_none()) return;
  const auto steps = bytes.cast<std::vector<std::int64_t>>();
  if (steps.size() != source.shape.size()) {
    source.flaw = ", whose strides are not one for each axis";
    return;
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (steps[i] % n_bytes != 0) source.flaw = ", whose strides are not whole elements; copy it";
    source.strides[i] = steps[i] / n_bytes;
  }
}

/// Numba's protocol, version 3, for libraries without DLPack.
inline Source from_cuda_interface(const py::object& array, Stream stream) {
  n_cuda_devices();  // throws where there is none
  const auto interface = array.attr("__cuda_array_interface__").cast<py::dict>();
  const auto [address, read_only] = interface["data"].cast<std::pair<std::uintptr_t, bool>>();
  const auto dtype = py::dtype::from_args(interface["typestr"]);
  const auto n_bytes = std::max<py::ssize_t>(1, dtype.itemsize());
  Source source{array, reinterpret_cast<void*>(address), dtype,
                dtype_of(dtype.kind(), dtype.itemsize())};
  source.shape = interface["shape"].cast<std::vector<std::int64_t>>();
  if (has_negative(source.shape)) source.flaw = ", which has a negative size";
  set_strides(source, interface.attr("get")("strides"), n_bytes);
  if (address % static_cast<std::uintptr_t>(n_bytes) != 0)
    source.flaw = ", which is not aligned; copy it";
  if (dtype.byteorder() == '>') source.flaw = ", which is not in native byte order";
  if (!py::object(interface.attr("get")("mask")).is_none()) source.flaw = ", which is masked";
  source.device = is_empty(source.shape) ? current_cuda_device() : cuda_device_of(source.data);
  source.writable = !read_only;
  if (const py::object producer = interface.attr("get")("stream"); !producer.is_none()) {
    const Stream made{reinterpret_cast<void*>(producer.cast<std::uintptr_t>())};
    on_device(source.device, [] {}, [&](auto) { cuda_wait(stream, made); });
  }
  return source;
}

/// Our own DeviceArray (fastbts/device/arrays.py): address, shape, strides in elements, kind and
/// bytes of its type, and device. DLPack has no negative strides.
inline Source from_device_array(const py::object& array) {
  using Sizes = std::vector<std::int64_t>;
  const auto [address, shape, strides, kind, n_bytes, index] =
      array.attr("_described")
          .cast<std::tuple<std::uintptr_t, Sizes, Sizes, char, std::int64_t, int>>();
  Source source{array, reinterpret_cast<void*>(address), array.attr("dtype"),
                dtype_of(kind, n_bytes)};
  source.shape = shape, source.strides = strides, source.device = {true, index};
  source.writable = true;
  if (address % static_cast<std::uintptr_t>(n_bytes)) source.flaw = ", which is not aligned";
  return source;
}

/// Any array; nothing for other objects.
inline std::optional<Source> source_of(const py::object& object, Stream stream) {
  if (py::isinstance<py::array>(object))
    return from_numpy(py::reinterpret_borrow<py::array>(object));
  if (py::hasattr(object, "_described")) return from_device_array(object);
  if (py::hasattr(object, "__dlpack_device__")) return from_dlpack(object, stream);
  if (py::hasattr(object, "__cuda_array_interface__")) return from_cuda_interface(object, stream);
  return std::nullopt;
}

}  // namespace fastbts
