#pragma once

#include "core/cuda/kernel.h"
#include "ops/widen.h"

namespace fastbts {

/// blockIdx.y is the part.
template <typename T>
FASTBTS_KERNEL void widen_kernel(WidenArgs args) {
  const WidenPart part = args.parts[blockIdx.y];
  const T* source = static_cast<const T*>(part.source);
  for (std::int64_t i = thread_index(); i < part.n; i += n_threads_of_grid())
    part.target[i] = to_float(source[i]);
}

}  // namespace fastbts
