#pragma once

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"
#include "ops/linear.h"

namespace fastbts {

FASTBTS_DEVICE float activated(float x, Activation activation) {
  if (activation == Activation::kLeakyRelu) return x > 0.0F ? x : 0.01F * x;
  if (activation == Activation::kGelu) return 0.5F * x * (1.0F + erff(x * 0.70710678F));
  return x;
}

/// One warp per element of out. bias and add.data may be null.
FASTBTS_KERNEL void linear_kernel(Strided<const float, 2> x, Strided<const float, 2> weight,
                                  const float* bias, Strided<const float, 2> add,
                                  Activation activation, Strided<float, 2> out) {
  const std::int64_t n_out = out.shape[1], n_all = out.shape[0] * n_out;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t at = thread_index() / kWarp; at < n_all; at += n_threads_of_grid() / kWarp) {
    const std::int64_t n = at / n_out, j = at % n_out;
    float sum = 0.0F;
    for (std::int64_t i = lane; i < x.shape[1]; i += kWarp) sum += x.at(n, i) * weight.at(j, i);
    sum = warp_sum(sum);
    if (lane != 0) continue;
    if (bias) sum += bias[j];
    if (add.data) sum += add.at(n, j);
    out.at(n, j) = activated(sum, activation);
  }
}

}  // namespace fastbts
