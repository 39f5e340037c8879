#pragma once

#include "core/cuda/interpolation.h"

namespace fastbts {

/// Arrays are dense, except that cases of out are `out_step` elements apart: out may be a part of a
/// larger buffer.
struct AttentionSizes {
  int n_c, n_below, n_hidden, n_maps;
  int below[3], maps[3];
  std::int64_t out_step;
};

template <typename T>
struct AttentionPointers {
  const T *skip, *encoded, *decoded, *similarity;
  const float *w_x, *bias, *w_g, *w_s, *w_a;
  float strength;
  T* out;
  const float* strength_on_device = nullptr;  // read in place of strength where it is given
};

inline constexpr int kHiddenGroup =
    16;  // hidden channels that a thread keeps in registers at a time
inline constexpr int kChildren = 8;

/// Bytes of shared memory: the weights of one group of hidden channels, [inputs + 1 +
/// children][kHiddenGroup].
inline std::size_t attention_shared_bytes(const AttentionSizes& s) {
  return sizeof(float) * kHiddenGroup *
         static_cast<std::size_t>(2 * s.n_below + s.n_maps + 1 + kChildren);
}

/// Loads the weights of hidden channels [first, first + kHiddenGroup), zeros where there are no
/// more.
template <typename T>
FASTBTS_DEVICE void load_weights(const AttentionPointers<T>& p, const AttentionSizes& s, int first,
                                 float* shared) {
  const int n_inputs = 2 * s.n_below + s.n_maps;
  for (int i = static_cast<int>(threadIdx.x); i < (n_inputs + 1 + kChildren) * kHiddenGroup;
       i += static_cast<int>(blockDim.x)) {
    const int row = i / kHiddenGroup, j = first + i % kHiddenGroup;
    float value = 0.0F;
    if (j < s.n_hidden) {
      if (row < s.n_below)
        value = p.w_x[j * s.n_below + row];
      else if (row < 2 * s.n_below)
        value = p.w_g[j * s.n_below + row - s.n_below];
      else if (row < n_inputs)
        value = p.w_s[j * s.n_maps + row - 2 * s.n_below];
      else if (row == n_inputs)
        value = p.bias[j];
      else
        value = p.w_a[j * kChildren + row - n_inputs - 1];
    }
    shared[i] = value;
  }
}

/// sums += weights value, for all hidden channels of the group.
FASTBTS_DEVICE void mix(const float* weights, float value, float* sums) {
#pragma unroll
  for (int j = 0; j < kHiddenGroup; ++j) sums[j] += weights[j] * value;
}

/// One thread per voxel at half resolution, blockIdx.y the case: hidden channels in registers, a
/// group at a time, then the logits of its eight children, then the skip, read and written once.
template <typename T>
FASTBTS_KERNEL void attention_kernel(AttentionPointers<T> p, AttentionSizes s) {
  FASTBTS_DYNAMIC_SHARED(float, weights);
  const int n_inputs = 2 * s.n_below + s.n_maps;
  const std::int64_t n = static_cast<std::int64_t>(s.below[0]) * s.below[1] * s.below[2],
                     b = blockIdx.y;
  const std::int64_t n_map = static_cast<std::int64_t>(s.maps[0]) * s.maps[1] * s.maps[2];
  const std::int64_t voxel = thread_index();
  const std::int64_t v =
      voxel < n ? voxel : n - 1;  // threads beyond the end help to load, and write nothing
  const int w = static_cast<int>(v % s.below[2]), h = static_cast<int>(v / s.below[2] % s.below[1]);
  const int d = static_cast<int>(v / s.below[2] / s.below[1]);
  const Tap at_d = tap_of(d, s.maps[0], s.below[0]), at_h = tap_of(h, s.maps[1], s.below[1]);
  const Tap at_w = tap_of(w, s.maps[2], s.below[2]);

  float logits[kChildren] = {};
  for (int first = 0; first < s.n_hidden; first += kHiddenGroup) {
    __syncthreads();
    load_weights(p, s, first, weights);
    __syncthreads();
    float hidden[kHiddenGroup] = {};
    mix(weights + n_inputs * kHiddenGroup, 1.0F, hidden);
    for (int c = 0; c < s.n_below; ++c)
      mix(weights + c * kHiddenGroup, to_float(p.encoded[(b * s.n_below + c) * n + v]), hidden);
    for (int c = 0; c < s.n_below; ++c)
      mix(weights + (s.n_below + c) * kHiddenGroup,
          to_float(p.decoded[(b * s.n_below + c) * n + v]), hidden);
    for (int k = 0; k < s.n_maps; ++k) {
      const float up =
          sample(p.similarity + (b * s.n_maps + k) * n_map, s.maps[1], s.maps[2], at_d, at_h, at_w);
      mix(weights + (2 * s.n_below + k) * kHiddenGroup, up, hidden);
    }
#pragma unroll
    for (int j = 0; j < kHiddenGroup; ++j) {
      // A channel beyond the last one has weights of zero; infinite features would make it NaN.
      const float active = first + j < s.n_hidden ? hidden[j] : 0.0F;
      const float value = active > 0.0F ? active : 0.01F * active;
#pragma unroll
      for (int i = 0; i < kChildren; ++i)
        logits[i] += weights[(n_inputs + 1 + i) * kHiddenGroup + j] * value;
    }
  }
  if (voxel >= n) return;
  const float strength = p.strength_on_device ? *p.strength_on_device : p.strength;
#pragma unroll
  for (int i = 0; i < kChildren; ++i) {
    const float factor = 1.0F + strength * (2.0F / (1.0F + expf(-logits[i])) - 1.0F);
    const std::int64_t row = (2 * d + i / 4) * 2 * s.below[1] + 2 * h + i / 2 % 2;
    const std::int64_t at = row * 2 * s.below[2] + 2 * w + i % 2;
    for (int c = 0; c < s.n_c; ++c)
      p.out[b * s.out_step + c * 8 * n + at] =
          from_float<T>(to_float(p.skip[(b * s.n_c + c) * 8 * n + at]) * factor);
  }
}

}  // namespace fastbts
