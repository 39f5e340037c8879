#pragma once

#include "core/cuda/warp.h"

namespace fastbts {

/// (B, C, D, H, W); all arrays are dense. In step 1 n_c is R.
struct BridgeSizes {
  int n_b, n_c, n_d, n_h, n_w;
};

/// Step 1, z (kAlongD) or y: one thread per pixel of the plane, so that reads are coalesced.
template <typename T, bool kAlongD>
FASTBTS_KERNEL void project_kernel(const T* tensor, BridgeSizes sizes, T* plane) {
  const int n_rows = kAlongD ? sizes.n_h : sizes.n_d, n = kAlongD ? sizes.n_d : sizes.n_h;
  const std::int64_t slice = static_cast<std::int64_t>(sizes.n_h) * sizes.n_w;
  const std::int64_t step = kAlongD ? slice : sizes.n_w, row_step = kAlongD ? sizes.n_w : slice;
  const std::int64_t pixels = static_cast<std::int64_t>(n_rows) * sizes.n_w,
                     n_all = pixels * sizes.n_b * sizes.n_c;
  for (std::int64_t i = thread_index(); i < n_all; i += n_threads_of_grid()) {
    const std::int64_t w = i % sizes.n_w, row = i / sizes.n_w % n_rows, channel = i / pixels;
    const T* values = tensor + channel * sizes.n_d * slice + row * row_step + w;
    float sum = 0.0F, largest = to_float(values[0]);
    for (int k = 0; k < n; ++k) {
      const float value = to_float(values[k * step]);
      sum += value;
      largest = value > largest ? value : largest;
    }
    const std::int64_t b = channel / sizes.n_c, c = channel % sizes.n_c;
    T* means = plane + (b * 2 * sizes.n_c + c) * pixels + i % pixels;
    means[0] = from_float<T>(sum / static_cast<float>(n));
    means[sizes.n_c * pixels] = from_float<T>(largest);
  }
}

/// Step 1, x: one warp per row, as the values of a pixel are adjacent.
template <typename T>
FASTBTS_KERNEL void project_rows_kernel(const T* tensor, BridgeSizes sizes, T* plane) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t pixels = static_cast<std::int64_t>(sizes.n_d) * sizes.n_h;
  const std::int64_t n_rows = pixels * sizes.n_b * sizes.n_c;
  for (std::int64_t row = thread_index() / kWarp; row < n_rows;
       row += n_threads_of_grid() / kWarp) {
    const T* values = tensor + row * sizes.n_w;
    float sum = 0.0F, largest = to_float(values[0]);
    for (int w = lane; w < sizes.n_w; w += kWarp) {
      const float value = to_float(values[w]);
      sum += value;
      largest = value > largest ? value : largest;
    }
    sum = warp_sum(sum);
    largest = warp_max(largest);
    const std::int64_t channel = row / pixels, b = channel / sizes.n_c, c = channel % sizes.n_c;
    T* means = plane + (b * 2 * sizes.n_c + c) * pixels + row % pixels;
    if (lane == 0) means[0] = from_float<T>(sum / static_cast<float>(sizes.n_w));
    if (lane == 0) means[sizes.n_c * pixels] = from_float<T>(largest);
  }
}

/// One plane (B, 2R, rows, columns), dense.
struct PlaneSizes {
  int n_r, n_c, n_rows, n_columns;
};

/// Step 2. One warp's width of pixels per block, blockIdx.y the case: hidden channels into shared
/// memory (R, kWarp), then out. axis_bias is the row of this plane's axis.
template <typename T>
FASTBTS_KERNEL void plane_kernel(const T* plane, const float* conv, const float* bias,
                                 const float* axis_bias, const float* expand, PlaneSizes sizes,
                                 T* out) {
  FASTBTS_DYNAMIC_SHARED(float, hidden);
  const int n_pixels = sizes.n_rows * sizes.n_columns, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int pixel = static_cast<int>(blockIdx.x) * kWarp + lane;
  const int h = pixel / sizes.n_columns, w = pixel % sizes.n_columns;
  const int group = static_cast<int>(threadIdx.x) / kWarp,
            n_groups = static_cast<int>(blockDim.x) / kWarp;
  const T* image = plane + static_cast<std::int64_t>(blockIdx.y) * 2 * sizes.n_r * n_pixels;
  for (int r = group; r < sizes.n_r; r += n_groups) {
    float sum = bias[r] + axis_bias[r];
    for (int i = 0; i < 2 * sizes.n_r * 9; ++i) {
      const int y = h + i / 3 % 3 - 1, x = w + i % 3 - 1;
      const bool inside =
          pixel < n_pixels && y >= 0 && y < sizes.n_rows && x >= 0 && x < sizes.n_columns;
      const std::int64_t at = static_cast<std::int64_t>(i / 9) * n_pixels + y * sizes.n_columns + x;
      if (inside)
        sum += conv[static_cast<std::int64_t>(r) * 2 * sizes.n_r * 9 + i] * to_float(image[at]);
    }
    hidden[r * kWarp + lane] = sum > 0.0F ? sum : 0.01F * sum;
  }
  __syncthreads();
  for (int c = group; c < sizes.n_c && pixel < n_pixels; c += n_groups) {
    float sum = 0.0F;
    for (int r = 0; r < sizes.n_r; ++r) sum += expand[c * sizes.n_r + r] * hidden[r * kWarp + lane];
    out[(static_cast<std::int64_t>(blockIdx.y) * sizes.n_c + c) * n_pixels + pixel] =
        from_float<T>(sum);
  }
}

/// Step 3: one thread per voxel; out may be `volume`.
template <typename T>
FASTBTS_KERNEL void lift_kernel(const T* volume, const T* z, const T* y, const T* x,
                                BridgeSizes sizes, T* out) {
  const std::int64_t n =
      static_cast<std::int64_t>(sizes.n_b) * sizes.n_c * sizes.n_d * sizes.n_h * sizes.n_w;
  for (std::int64_t i = thread_index(); i < n; i += n_threads_of_grid()) {
    const std::int64_t row = i / sizes.n_w, slice = row / sizes.n_h, channel = slice / sizes.n_d;
    const std::int64_t w = i % sizes.n_w, h = row % sizes.n_h;
    const float at_z = to_float(z[(channel * sizes.n_h + h) * sizes.n_w + w]),
                at_y = to_float(y[slice * sizes.n_w + w]);
    const float lifted = (at_z + at_y + to_float(x[row])) * (1.0F / 3.0F);
    out[i] = from_float<T>(to_float(volume[i]) + lifted);
  }
}

}  // namespace fastbts
