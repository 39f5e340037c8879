#pragma once

#include <cstdint>

/// The C structs of DLPack 1.0 and of the capsules before it (its "C API" page). Layout and names
/// are DLPack's.
extern "C" {

struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

}  // extern "C"

namespace fastbts::dlpack {

inline constexpr std::int32_t kCpu = 1, kCuda = 2, kCudaHost = 3,
                              kCudaManaged = 13;  // DLDeviceType
inline constexpr std::uint8_t kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4,
                              kBool = 6;       // DLDataTypeCode
inline constexpr std::uint64_t kReadOnly = 1;  // DLPACK_FLAG_BITMASK_READ_ONLY

}  // namespace fastbts::dlpack
