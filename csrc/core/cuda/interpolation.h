#pragma once

#include "core/cuda/kernel.h"

namespace fastbts {

/// Where a point of a resampled axis takes its value from: low + part * (high - low).
struct Tap {
  int low, high;
  float part;
};

/// Point i of n_out is at ((2i + 1) n_in - n_out) / (2 n_out), in integers, so exact.
FASTBTS_DEVICE Tap tap_of(int i, int n_in, int n_out) {
  const std::int64_t top = (2 * static_cast<std::int64_t>(i) + 1) * n_in - n_out,
                     bottom = 2 * static_cast<std::int64_t>(n_out);
  if (top <= 0) return {0, 0, 0.0F};
  const int low = static_cast<int>(top / bottom);
  if (low >= n_in - 1) return {n_in - 1, n_in - 1, 0.0F};
  return {low, low + 1, static_cast<float>(top % bottom) / static_cast<float>(bottom)};
}

FASTBTS_DEVICE float lerp(float low, float high, float part) { return low + (high - low) * part; }

/// Trilinear value of a dense volume whose axes after the first have these lengths; D, then H, then
/// W as on the CPU.
template <typename T>
FASTBTS_DEVICE float sample(const T* volume, int n_h, int n_w, const Tap& d, const Tap& h,
                            const Tap& w) {
  const auto along_d = [&](int y, int x) {
    const T* column = volume + static_cast<std::int64_t>(y) * n_w + x;
    const std::int64_t step = static_cast<std::int64_t>(n_h) * n_w;
    return lerp(to_float(column[d.low * step]), to_float(column[d.high * step]), d.part);
  };
  const auto along_h = [&](int x) { return lerp(along_d(h.low, x), along_d(h.high, x), h.part); };
  return lerp(along_h(w.low), along_h(w.high), w.part);
}

}  // namespace fastbts
