#pragma once

#include <cstdint>

#include "core/array/device.h"
#include "core/array/dtype.h"

namespace fastbts {

struct WidenPart {
  const void* source;
  float* target;
  std::int64_t n;
};

inline constexpr int kWidenParts = 6;

struct WidenArgs {
  WidenPart parts[kWidenParts];
  DType dtype;
};

/// Copies small arrays of one type into float32: the semantic ops take their weights so, and a
/// network in float16 has them in float16.
///   source  (n)  floats   read
///   target  (n)  float32  written
/// All on the current CUDA device; parts of no elements are left out. Exact.
void widen_cuda(const WidenArgs& args, Stream stream);

}  // namespace fastbts
