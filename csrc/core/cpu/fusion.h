#pragma once

#include <algorithm>
#include <cstdint>

#include "core/array/tensor_view.h"
#include "core/cpu/activations.h"
#include "core/cpu/bfloat16.h"

namespace fastbts {

/// What becomes of the voxels of an image at the network's input, see ops/pack.h.
struct Fusion {
  float gain = 1, background = 0, step = 1;
};

template <typename T>
T stored(float value, const Fusion&) {
  return from_float<T>(value);
}

template <>
inline std::int8_t stored<std::int8_t>(float value, const Fusion& fusion) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: beyond it are no fractions
  const float steps = std::min(std::max(value / fusion.step, -128.0F), 127.0F);
  return static_cast<std::int8_t>(static_cast<std::int32_t>((steps + kRound) - kRound));
}

template <typename T>
T fused(float value, const Fusion& fusion) {
  return stored<T>(value == 0 ? fusion.background : value * fusion.gain, fusion);
}

/// The gain of modality m; present[n] is 1 where modality n has a voxel other than 0, else 0.
inline float gain_of(const View<const float, 2>& gate, const View<const float, 1>& bias,
                     std::int64_t m, const float* present) {
  float sum = *bias.at(m);
  for (std::int64_t n = 0; n < gate.shape[1]; ++n) sum += *gate.at(m, n) * present[n];
  return 2 * sigmoid(sum);
}

/// Calls fn(Tag<T>{}) with float, Bfloat16 or int8.
template <typename Fn>
void dispatch_packed(DType dtype, Fn&& fn) {
  dtype == DType::kInt8 ? fn(Tag<std::int8_t>{}) : dispatch_float(dtype, fn);
}

}  // namespace fastbts
