#pragma once

#include "core/cuda/kernel.h"

namespace fastbts {

/// Sum over the lanes of a warp, all of which must call it. All get the result.
template <typename T>
FASTBTS_DEVICE T warp_sum(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

template <typename T>
FASTBTS_DEVICE T warp_max(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

FASTBTS_DEVICE bool is_first_lane() {
  return (threadIdx.x + blockDim.x * threadIdx.y) % kWarp == 0;
}

}  // namespace fastbts
