#pragma once

#include <cstdint>

namespace fastbts {

/// Element types an image may have, in native byte order; 16-bit floats on CUDA devices only.
enum class DType {
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat32,
  kFloat64,
  kFloat16,
  kBfloat16
};

/// Bytes of an element.
constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
    case DType::kUint8:
      return 1;
    case DType::kInt16:
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBfloat16:
      return 2;
    case DType::kInt32:
    case DType::kUint32:
    case DType::kFloat32:
      return 4;
    default:
      return 8;
  }
}

template <typename T>
struct Tag {
  using type = T;
};

/// Calls fn(Tag<T>{}) with the C++ type of dtype, on the CPU.
template <typename Fn>
void dispatch(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kInt8:
      return fn(Tag<std::int8_t>{});
    case DType::kUint8:
      return fn(Tag<std::uint8_t>{});
    case DType::kInt16:
      return fn(Tag<std::int16_t>{});
    case DType::kUint16:
      return fn(Tag<std::uint16_t>{});
    case DType::kInt32:
      return fn(Tag<std::int32_t>{});
    case DType::kUint32:
      return fn(Tag<std::uint32_t>{});
    case DType::kInt64:
      return fn(Tag<std::int64_t>{});
    case DType::kUint64:
      return fn(Tag<std::uint64_t>{});
    case DType::kFloat32:
      return fn(Tag<float>{});
    case DType::kFloat64:
      return fn(Tag<double>{});
    case DType::kFloat16:
    case DType::kBfloat16:
      return;  // refused when the array is borrowed
  }
}

}  // namespace fastbts
