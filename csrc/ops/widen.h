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

/// Copies small arrays of one type into float32: weights of the semantic ops, which a network in
/// float16 has in float16.
///   source  (n)  floats   read
///   target  (n)  float32  written
/// All on the current CUDA device; parts without elements are skipped. Exact.
void widen_cuda(const WidenArgs& args, Stream stream);

}  // namespace fastbts
