#pragma once

#include "core/cuda/strided.h"
#include "core/cuda/warp.h"
#include "ops/guidance.h"

namespace fastbts {

/// Address of voxel i of case b of features (B, D, H, W, E).
template <typename T>
FASTBTS_DEVICE T* voxel_at(const Strided<T, 5>& features, std::int64_t b, std::int64_t i) {
  const std::int64_t n_w = features.shape[3], n_h = features.shape[2];
  return features.data + features.offset(b, i / n_w / n_h, i / n_w % n_h, i % n_w);
}

FASTBTS_DEVICE std::int64_t n_voxels_of(const std::int64_t* shape) {
  return shape[1] * shape[2] * shape[3];
}

/// One thread per voxel.
FASTBTS_KERNEL void similarity_kernel(Strided<const Half, 5> image, Strided<const float, 2> text,
                                      float scale, const float* bias, Strided<Half, 5> out) {
  const std::int64_t n = n_voxels_of(image.shape), n_all = image.shape[0] * n;
  const int n_k = static_cast<int>(text.shape[0]), n_e = static_cast<int>(text.shape[1]);
  const std::int64_t n_w = image.shape[3], n_h = image.shape[2];
  for (std::int64_t at = thread_index(); at < n_all; at += n_threads_of_grid()) {
    const std::int64_t b = at / n, i = at % n;
    const Half* const x = voxel_at(image, b, i);
    for (int k = 0; k < n_k; ++k) {
      float product = 0.0F, image_square = 0.0F, text_square = 0.0F;
      for (int e = 0; e < n_e; ++e) {
        const float value = to_float(x[e]), other = text.at(k, e);
        product += value * other;
        image_square += value * value;
        text_square += other * other;
      }
      const float lengths = fmaxf(sqrtf(image_square), 1e-12F) * fmaxf(sqrtf(text_square), 1e-12F);
      out.at(b, k, i / n_w / n_h, i / n_w % n_h, i % n_w) =
          from_float<Half>(scale * (product / lengths) + bias[k]);
    }
  }
}

/// Sum or maximum of a value of each of kWarps warps; `shared` has room for one per warp.
template <bool kIsSum>
FASTBTS_DEVICE float over_block(float value, float* shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            n_warps = static_cast<int>(blockDim.x) / kWarp;
  value = kIsSum ? warp_sum(value) : warp_max(value);
  __syncthreads();  // until all have read what was there before
  if (is_first_lane()) shared[warp] = value;
  __syncthreads();
  float total = shared[0];
  for (int i = 1; i < n_warps; ++i) {
    if (kIsSum)
      total += shared[i];
    else
      total = shared[i] > total ? shared[i] : total;
  }
  return total;
}

/// blockIdx.x is the text vector, y the case. Logits and then weights of all voxels are in scratch.
FASTBTS_KERNEL void text_reads_kernel(Strided<const float, 3> query, Strided<const Half, 5> key,
                                      Strided<const Half, 5> value, Strided<float, 3> out,
                                      float* scratch) {
  FASTBTS_DYNAMIC_SHARED(float, shared);
  const std::int64_t n = n_voxels_of(key.shape), b = blockIdx.y, k = blockIdx.x;
  const int n_e = static_cast<int>(query.shape[2]), thread = static_cast<int>(threadIdx.x);
  float* const weights = scratch + (b * query.shape[1] + k) * n;
  const float scale = 1.0F / sqrtf(static_cast<float>(n_e));
  float largest = -3.4e38F, sum = 0.0F;
  for (std::int64_t i = thread; i < n; i += blockDim.x) {
    const Half* const x = voxel_at(key, b, i);
    float logit = 0.0F;
    for (int e = 0; e < n_e; ++e) logit += query.at(b, k, e) * to_float(x[e]);
    weights[i] = logit * scale;
    largest = fmaxf(largest, weights[i]);
  }
  largest = over_block<false>(largest, shared);
  for (std::int64_t i = thread; i < n; i += blockDim.x) {
    weights[i] = expf(weights[i] - largest);
    sum += weights[i];
  }
  sum = over_block<true>(sum, shared);  // its barriers also show all weights to all threads
  for (int e = thread; e < n_e; e += static_cast<int>(blockDim.x)) {
    float total = 0.0F;
    for (std::int64_t i = 0; i < n; ++i) total += weights[i] * to_float(voxel_at(value, b, i)[e]);
    out.at(b, k, e) = total / sum;
  }
}

/// One thread per voxel.
FASTBTS_KERNEL void image_reads_kernel(Strided<const Half, 5> query, Strided<const float, 3> key,
                                       Strided<const float, 3> value, Strided<Half, 5> out) {
  const std::int64_t n = n_voxels_of(query.shape), n_all = query.shape[0] * n;
  const int n_k = static_cast<int>(key.shape[1]), n_e = static_cast<int>(key.shape[2]);
  const float scale = 1.0F / sqrtf(static_cast<float>(n_e));
  for (std::int64_t at = thread_index(); at < n_all; at += n_threads_of_grid()) {
    const std::int64_t b = at / n, i = at % n;
    const Half* const x = voxel_at(query, b, i);
    Half* const target = voxel_at(out, b, i);
    float weights[kMostPrompts] = {}, largest = -3.4e38F, sum = 0.0F;
#pragma unroll
    for (int k = 0; k < kMostPrompts; ++k) {
      if (k >= n_k) continue;
      for (int e = 0; e < n_e; ++e) weights[k] += to_float(x[e]) * key.at(b, k, e);
      weights[k] *= scale;
      largest = fmaxf(largest, weights[k]);
    }
#pragma unroll
    for (int k = 0; k < kMostPrompts; ++k) {
      if (k < n_k) sum += weights[k] = expf(weights[k] - largest);
    }
    for (int e = 0; e < n_e; ++e) {
      float total = 0.0F;
#pragma unroll
      for (int k = 0; k < kMostPrompts; ++k) {
        if (k < n_k) total += weights[k] * value.at(b, k, e);
      }
      target[e] = from_float<Half>(total / sum);
    }
  }
}

}  // namespace fastbts
