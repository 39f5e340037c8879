#pragma once

#include "core/cuda/interpolation.h"
#include "core/cuda/pack.h"

/// One launch. Estimates, as no GPU has run it; float16, B 1, J 16, K 3, at BraTS size:
///   level                            bytes    ideal at 3.0 / 4.3 TB/s  estimate
///   C 32, C' 64, 36 x 44 x 36 below  73 MB    24 / 17 us               40 us
///   C 64, C' 128, 18 x 22 x 18       18 MB    6 / 4 us                 12 us
/// The arithmetic of the first takes 10 us, beside the memory accesses of other blocks; what is
/// left is memory's latency, with 24 warps on a multiprocessor. The second has 112 blocks only.
namespace fastbts {

/// A tensor (B, C, D, H, W), and the elements from one case, channel or voxel to the next.
template <typename T>
struct Feature {
  T* data;
  std::int64_t case_step, channel_step;
  int voxel_step;
};

/// Of skip and out n_c channels; n_c_out of out are written, those after n_c with zeros.
struct AttentionSizes {
  int n_c, n_c_out, n_below, n_hidden, n_maps;
  int below[3], maps[3];
};

template <typename T>
struct AttentionPointers {
  Feature<const T> skip, encoded, decoded, similarity;
  const float *w_x, *bias, *w_g, *w_s, *w_a;
  float strength;
  Feature<T> out;
  const float* strength_on_device = nullptr;  // read in place of strength where it is given
};

inline constexpr int kHiddenGroup = 16;  // hidden channels that a thread sums at a time
inline constexpr int kBlockVoxels = 64;  // at half resolution, of a block
inline constexpr int kSplits = 4;  // threads that share the inputs of a voxel, then its children
inline constexpr unsigned kAttentionThreads = kBlockVoxels * kSplits;
inline constexpr int kChildren = 8;
inline constexpr int kLine =
    2 * kBlockVoxels;  // children of a block along W, for one d and h of four
/// Weights of an input channel in shared memory: 16 bytes more than one group, so that writing them
/// meets all banks.
inline constexpr int kInputRow = kHiddenGroup + 4;
inline constexpr int kMostItems = 8;  // channels that a thread reads at once
inline constexpr int kPartFloats = kSplits * kHiddenGroup * kBlockVoxels;
inline constexpr int kFactorFloats = kSplits * kLine;

/// Shared memory: parts of sums (kSplits, kHiddenGroup, kBlockVoxels), factors (4, kLine), the
/// first child of each voxel (kBlockVoxels), and the weights of one kind of input.
inline std::size_t attention_shared_bytes(const AttentionSizes& s) {
  const int most = s.n_below > s.n_maps ? s.n_below : s.n_maps;
  const int n_rows = (most + kMostItems - 1) / kMostItems * kMostItems;
  return sizeof(float) * (kPartFloats + kFactorFloats + kBlockVoxels) +
         sizeof(float) * kInputRow * static_cast<std::size_t>(n_rows);
}

/// The voxel of a thread at half resolution, its number in the block, and the thread's split.
struct Place {
  int d, h, w, slot, split;
};

/// Threads beyond the last voxel take it too: they help, and have no children.
FASTBTS_DEVICE Place place_of(const AttentionSizes& s, int* children) {
  const int n = s.below[0] * s.below[1] * s.below[2], thread = static_cast<int>(threadIdx.x);
  const int slot = thread % kBlockVoxels, split = thread / kBlockVoxels;
  const int i = static_cast<int>(blockIdx.x) * kBlockVoxels + slot, voxel = min(i, n - 1);
  const int row = voxel / s.below[2], w = voxel % s.below[2];
  const int d = row / s.below[1], h = row % s.below[1];
  const int first_child = (d * 4 * s.below[1] + 2 * h) * 2 * s.below[2] + 2 * w;
  if (split == 0) children[slot] = i < n ? first_child : -1;
  return {d, h, w, slot, split};
}

/// Weights (J, n) of hidden channels [first, first + kHiddenGroup) as (n, kInputRow); zeros where
/// there are no more of either. A warp reads along a row.
FASTBTS_DEVICE void load_weights(const float* weights, int n, int first, int n_hidden,
                                 float* shared) {
  constexpr int kWarps = kAttentionThreads / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int n_rows = (n + kMostItems - 1) / kMostItems * kMostItems;
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.x) / kWarp; j < kHiddenGroup; j += kWarps) {
#pragma unroll 2
    for (int c = lane; c < n_rows; c += kWarp) {
      const bool exists = first + j < n_hidden && c < n;
      shared[c * kInputRow + j] = exists ? weights[(first + j) * n + c] : 0.0F;
    }
  }
  __syncthreads();
}

/// sums += weights value, for all hidden channels of the group. fmaf has the same bits everywhere.
FASTBTS_DEVICE void mix(const float* weights, float value, float (&sums)[kHiddenGroup]) {
#pragma unroll
  for (int j = 0; j < kHiddenGroup; j += 4) {
    const auto four = load_pack<Pack<float, 4>>(weights + j);
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[j + k] = fmaf(four.items[k], value, sums[j + k]);
  }
}

/// Adds this split's share of the channels of a voxel. A few are loaded before the first is used,
/// so that more of memory's latency overlaps.
template <typename T>
FASTBTS_DEVICE void mix_channels(const T* voxel, std::int64_t step, int n, int split,
                                 const float* weights, float (&sums)[kHiddenGroup]) {
  constexpr int kBatch = 8;
  for (int first = split; first < n; first += kBatch * kSplits) {
    float values[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int c = first + i * kSplits;
      values[i] = c < n ? to_float(voxel[c * step]) : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int c = first + i * kSplits;
      if (c < n) mix(weights + c * kInputRow, values[i], sums);
    }
  }
}

/// The same of a channels-last tensor, in groups of adjacent channels.
template <typename P, typename T>
FASTBTS_DEVICE void mix_groups(const T* voxel, int n, int split, const float* weights,
                               float (&sums)[kHiddenGroup]) {
#pragma unroll 1
  for (int c = split * P::kItems; c < n; c += kSplits * P::kItems) {
    const P group = load_pack<P>(voxel + c);
#pragma unroll
    for (int k = 0; k < P::kItems; ++k) {  // beyond n is padding, which may be anything
      const float value = c + k < n ? to_float(group.items[k]) : 0.0F;
      mix(weights + (c + k) * kInputRow, value, sums);
    }
  }
}

/// tap_of in 32 bits: 2 n_in n_out must fit.
FASTBTS_DEVICE Tap short_tap_of(int i, int n_in, int n_out) {
  const int top = (2 * i + 1) * n_in - n_out;
  if (top <= 0) return {0, 0, 0.0F};
  const unsigned bottom = 2U * static_cast<unsigned>(n_out);
  const int low = static_cast<int>(static_cast<unsigned>(top) / bottom);
  if (low >= n_in - 1) return {n_in - 1, n_in - 1, 0.0F};
  const unsigned rest = static_cast<unsigned>(top) % bottom;
  return {low, low + 1, static_cast<float>(rest) / static_cast<float>(bottom)};
}

/// Trilinear value of a map at a voxel; D, then H, then W as on the CPU.
template <typename T>
FASTBTS_DEVICE float map_at(const T* map, int voxel_step, const int* n, const Tap& d, const Tap& h,
                            const Tap& w) {
  const auto at = [&](int z, int y, int x) {
    return to_float(map[((z * n[1] + y) * n[2] + x) * voxel_step]);
  };
  const auto along_d = [&](int y, int x) {
    return lerp(at(d.low, y, x), at(d.high, y, x), d.part);
  };
  const auto along_h = [&](int x) { return lerp(along_d(h.low, x), along_d(h.high, x), h.part); };
  return lerp(along_h(w.low), along_h(w.high), w.part);
}

template <typename T>
FASTBTS_DEVICE void mix_maps(const Feature<const T>& maps, const AttentionSizes& s, const Place& at,
                             const float* weights, float (&sums)[kHiddenGroup]) {
  if (at.split >= s.n_maps) return;
  const Tap d = short_tap_of(at.d, s.maps[0], s.below[0]),
            h = short_tap_of(at.h, s.maps[1], s.below[1]);
  const Tap w = short_tap_of(at.w, s.maps[2], s.below[2]);
  const T* const map = maps.data + blockIdx.y * maps.case_step;
  for (int k = at.split; k < s.n_maps; k += kSplits)
    mix(weights + k * kInputRow,
        map_at(map + k * maps.channel_step, maps.voxel_step, s.maps, d, h, w), sums);
}

/// This split's parts of the sums of hidden channels [first, first + kHiddenGroup).
template <typename T, typename P, bool kChannelsLast>
FASTBTS_DEVICE void sum_parts(const AttentionPointers<T>& p, const AttentionSizes& s,
                              const Place& at, int first, float* weights, float* parts) {
  float sums[kHiddenGroup] = {};
  const int voxel = (at.d * s.below[1] + at.h) * s.below[2] + at.w;
  const auto mix_feature = [&](const Feature<const T>& feature, const float* w) {
    load_weights(w, s.n_below, first, s.n_hidden, weights);
    const T* const values =
        feature.data + blockIdx.y * feature.case_step + voxel * feature.voxel_step;
    if constexpr (kChannelsLast)
      mix_groups<P>(values, s.n_below, at.split, weights, sums);
    else
      mix_channels(values, feature.channel_step, s.n_below, at.split, weights, sums);
  };
  mix_feature(p.encoded, p.w_x);
  mix_feature(p.decoded, p.w_g);
  load_weights(p.w_s, s.n_maps, first, s.n_hidden, weights);
  mix_maps(p.similarity, s, at, weights, sums);
#pragma unroll
  for (int j = 0; j < kHiddenGroup; ++j)
    parts[(at.split * kHiddenGroup + j) * kBlockVoxels + at.slot] = sums[j];
  __syncthreads();
}

/// Adds the hidden channels of the group to the logits of the split's two children.
template <typename T>
FASTBTS_DEVICE void add_logits(const AttentionPointers<T>& p, const AttentionSizes& s,
                               const Place& at, int first, const float* parts, float (&logits)[2]) {
  const int n = min(kHiddenGroup, s.n_hidden - first);  // 0 times a sum that is infinite is NaN
  for (int j = 0; j < n; ++j) {
    float hidden = p.bias[first + j];
#pragma unroll
    for (int split = 0; split < kSplits; ++split)
      hidden += parts[(split * kHiddenGroup + j) * kBlockVoxels + at.slot];
    hidden = hidden > 0.0F ? hidden : 0.01F * hidden;
    const float* const w_a = p.w_a + (first + j) * kChildren + 2 * at.split;
    logits[0] = fmaf(w_a[0], hidden, logits[0]);
    logits[1] = fmaf(w_a[1], hidden, logits[1]);
  }
}

/// Elements that are adjacent in memory, along W of a channel or along the channels of a voxel:
/// where they are, of which channel the first is, and the factor of the first.
struct Group {
  int voxel, channel, factor;
};

/// Group i of the children of a block; voxel is negative where there is none.
template <int kItems, bool kChannelsLast>
FASTBTS_DEVICE Group group_at(unsigned i, unsigned n, const AttentionSizes& s,
                              const int* children) {
  constexpr unsigned kAlong = kChannelsLast ? 1 : kItems, kAcross = kLine / kAlong;
  const auto per_voxel = static_cast<unsigned>(s.n_c_out / kItems);
  const unsigned place = kChannelsLast ? i / per_voxel : i % (kSplits * kAcross);
  const unsigned channel = kChannelsLast ? i % per_voxel * kItems : i / (kSplits * kAcross);
  const unsigned x = place % kAcross * kAlong, line = place / kAcross;
  const int child = i < n ? children[x / 2] : -1;
  const unsigned step = (line / 2 * 2 * s.below[1] + line % 2) * 2 * s.below[2] + x % 2;
  return {child < 0 ? -1 : child + static_cast<int>(step), static_cast<int>(channel),
          static_cast<int>(line * kLine + x)};
}

/// Weights the block's children. Each thread loads a few groups before it stores the first, so that
/// more of memory's latency overlaps.
template <typename T, typename P, bool kChannelsLast>
FASTBTS_DEVICE void weight_children(const AttentionPointers<T>& p, const AttentionSizes& s,
                                    const float* factors, const int* children) {
  constexpr unsigned kBatch = 2;
  const T* const skip = p.skip.data + blockIdx.y * p.skip.case_step;
  T* const out = p.out.data + blockIdx.y * p.out.case_step;
  const unsigned n = kSplits * kLine / P::kItems * static_cast<unsigned>(s.n_c_out);
  for (unsigned first = threadIdx.x; first < n; first += kBatch * kAttentionThreads) {
    Group at[kBatch];
    P items[kBatch];
#pragma unroll
    for (unsigned i = 0; i < kBatch; ++i) {
      at[i] = group_at<P::kItems, kChannelsLast>(first + i * kAttentionThreads, n, s, children);
      if (at[i].voxel >= 0)
        items[i] = load_pack<P>(skip + at[i].channel * p.skip.channel_step +
                                at[i].voxel * p.skip.voxel_step);
    }
#pragma unroll
    for (unsigned i = 0; i < kBatch; ++i) {
      if (at[i].voxel < 0) continue;
#pragma unroll
      for (int k = 0; k < P::kItems; ++k) {
        const float factor = factors[at[i].factor + (kChannelsLast ? 0 : k)];
        const bool padding = kChannelsLast && at[i].channel + k >= s.n_c;
        items[i].items[k] = from_float<T>(padding ? 0.0F : to_float(items[i].items[k]) * factor);
      }
      store_pack(out + at[i].channel * p.out.channel_step + at[i].voxel * p.out.voxel_step,
                 items[i]);
    }
  }
}

/// One block per kBlockVoxels voxels at half resolution, blockIdx.y the case: sums of hidden
/// channels, logits and factors of the voxels' children, then the skip, read and written once.
template <typename T, typename P, bool kChannelsLast>
FASTBTS_KERNEL FASTBTS_BOUNDS(kAttentionThreads, 3) void attention_kernel(AttentionPointers<T> p,
                                                                          AttentionSizes s) {
  FASTBTS_DYNAMIC_SHARED(float, parts);
  float* const factors = parts + kPartFloats;
  int* const children = reinterpret_cast<int*>(factors + kFactorFloats);
  float* const weights = factors + kFactorFloats + kBlockVoxels;
  const Place at = place_of(s, children);
  float logits[2] = {};
  for (int first = 0; first < s.n_hidden; first += kHiddenGroup) {
    sum_parts<T, P, kChannelsLast>(p, s, at, first, weights, parts);
    add_logits(p, s, at, first, parts, logits);
  }
  const float strength = p.strength_on_device ? *p.strength_on_device : p.strength;
#pragma unroll
  for (int k = 0; k < 2; ++k)
    factors[at.split * kLine + 2 * at.slot + k] =
        1.0F + strength * (2.0F / (1.0F + expf(-logits[k])) - 1.0F);
  __syncthreads();
  weight_children<T, P, kChannelsLast>(p, s, factors, children);
}

}  // namespace fastbts
