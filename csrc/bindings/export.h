#pragma once

#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/dlpack.h"
#include "core/array/error.h"

/// DLPack capsules of memory that Python owns.
namespace fastbts {

namespace py = pybind11;

/// What a capsule points into, until its reader deletes it.
template <typename Managed>
struct Exported {
  Managed managed{};
  std::vector<std::int64_t> shape, strides;
  py::object owner;
};

/// May be called by any thread, also one without the GIL.
template <typename Managed>
void delete_exported(Managed* managed) {
  const py::gil_scoped_acquire gil;
  delete static_cast<Exported<Managed>*>(managed->manager_ctx);
}

/// Deletes what no reader took: a reader renames the capsule.
template <typename Managed>
void destroy_capsule(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

inline DLDataType dlpack_type(const std::string& typestr) {
  const auto kind = std::string("iuf").find(typestr.at(1));
  require<InputError>(kind != std::string::npos,
                      "dlpack_capsule: a type that DLPack has not: ", typestr);
  return {static_cast<std::uint8_t>(kind),
          static_cast<std::uint8_t>(8 * std::stoi(typestr.substr(2))), 1};
}

template <typename Managed>
py::object exported(std::unique_ptr<Exported<Managed>> made, DLTensor tensor, const char* name,
                    PyCapsule_Destructor destroy) {
  tensor.shape = made->shape.data();
  tensor.strides = made->strides.data();
  tensor.ndim = static_cast<std::int32_t>(made->shape.size());
  made->managed.dl_tensor = tensor;
  made->managed.manager_ctx = made.get();
  made->managed.deleter = delete_exported<Managed>;
  auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(&made->managed, name, destroy));
  if (!capsule) throw py::error_already_set();
  made.release();
  return capsule;
}

/// A capsule of memory on a CUDA device; strides in elements, typestr as in NumPy ("<f4").
inline py::object dlpack_capsule(py::object owner, std::uintptr_t address,
                                 std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                                 const std::string& typestr, std::int32_t device, bool versioned) {
  DLTensor tensor{};
  tensor.data = reinterpret_cast<void*>(address);
  tensor.device = {dlpack::kCuda, device};
  tensor.dtype = dlpack_type(typestr);
  if (versioned) {
    auto made = std::make_unique<Exported<DLManagedTensorVersioned>>();
    made->managed.version = {1, 0};
    made->shape = std::move(shape), made->strides = std::move(strides);
    made->owner = std::move(owner);
    return exported(std::move(made), tensor, "dltensor_versioned", [](PyObject* capsule) {
      destroy_capsule<DLManagedTensorVersioned>(capsule, "dltensor_versioned");
    });
  }
  auto made = std::make_unique<Exported<DLManagedTensor>>();
  made->shape = std::move(shape), made->strides = std::move(strides);
  made->owner = std::move(owner);
  return exported(std::move(made), tensor, "dltensor",
                  [](PyObject* capsule) { destroy_capsule<DLManagedTensor>(capsule, "dltensor"); });
}

}  // namespace fastbts
