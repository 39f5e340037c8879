#pragma once

#include "core/cuda/pack.h"

/// Three launches. Planes z, y, x follow each other: a case has H W + D W + D H pixels.
///
/// Estimates, as no GPU has run it; float16, B 1, C 128, R 32, 18 x 22 x 18 voxels (BraTS):
///   kernel   bytes   ideal at 3.0 / 4.3 TB/s  estimate
///   project  0.7 MB  0.3 / 0.2 us             3 us: a thread waits four times for memory
///   plane    0.7 MB  0.3 / 0.2 us             6 us: 21 M multiply-adds in 85 blocks, each of which
///                                             reads the 74 kB of the convolution's weights
///   lift     3.9 MB  1.3 / 0.9 us             3 us
namespace fastbts {

/// Sizes of a tensor (B, C, D, H, W), the elements from one entry of an axis to the next, and the
/// pixels of its three planes together.
struct BridgeVolume {
  int n_c, n_d, n_h, n_w, n_pixels;
  std::int64_t b_step;
  int c_step, d_step, h_step, w_step;
};

/// The values along one axis that become a pixel: n of them, `step` apart.
struct Ray {
  int first, step, n;
};

FASTBTS_DEVICE Ray ray_of(unsigned pixel, const BridgeVolume& s) {
  const unsigned n_h = s.n_h, n_w = s.n_w, along_d = n_h * n_w, along_h = s.n_d * n_w;
  const auto at = [](unsigned row, int row_step, unsigned column, int column_step) {
    return static_cast<int>(row) * row_step + static_cast<int>(column) * column_step;
  };
  if (pixel < along_d) return {at(pixel / n_w, s.h_step, pixel % n_w, s.w_step), s.d_step, s.n_d};
  pixel -= along_d;
  if (pixel < along_h) return {at(pixel / n_w, s.d_step, pixel % n_w, s.w_step), s.h_step, s.n_h};
  pixel -= along_h;
  return {at(pixel / n_h, s.d_step, pixel % n_h, s.h_step), s.w_step, s.n_w};
}

/// Step 1: planes (B, 2R, n_pixels). One thread per pixel and channel, blockIdx.y the case;
/// neighbours in memory are neighbouring threads, but for the rays along W of a dense tensor, whose
/// rows are next to each other and stay in the cache.
template <typename T>
FASTBTS_KERNEL void project_kernel(const T* reduced, BridgeVolume s, float* planes) {
  const auto n_r = static_cast<unsigned>(s.n_c), n_pixels = static_cast<unsigned>(s.n_pixels);
  const T* const tensor = reduced + blockIdx.y * s.b_step;
  float* const plane = planes + std::int64_t{blockIdx.y} * 2 * n_r * n_pixels;
  for (std::int64_t i = thread_index(); i < n_r * n_pixels; i += n_threads_of_grid()) {
    const auto item = static_cast<unsigned>(i);
    const unsigned pixel = s.c_step == 1 ? item / n_r : item % n_pixels;
    const unsigned c = s.c_step == 1 ? item % n_r : item / n_pixels;
    const Ray ray = ray_of(pixel, s);
    const T* const values = tensor + static_cast<int>(c) * s.c_step + ray.first;
    float sum = 0.0F, largest = to_float(values[0]);
#pragma unroll 6
    for (int k = 0; k < ray.n; ++k) {
      const float value = to_float(values[k * ray.step]);
      sum += value;
      largest = value > largest ? value : largest;
    }
    plane[c * n_pixels + pixel] = sum / static_cast<float>(ray.n);
    plane[(n_r + c) * n_pixels + pixel] = largest;
  }
}

struct PlaneWeights {
  const float *conv, *bias, *axis_bias, *expand;
};

/// Sizes of step 2: pixels of all planes, rows and columns of each; result (B, C, n_pixels), of
/// which a pixel has n_c_out channels, those after the first n_c zero.
struct PlaneSizes {
  int n_r, n_c, n_c_out, n_pixels;
  int n_rows[3], n_columns[3];
  int c_step, pixel_step;
};

inline constexpr int kPlaneTile = 4,
                     kTilePixels =
                         kPlaneTile * kPlaneTile;  // pixels along a side of a block's tile
inline constexpr int kHalo = kPlaneTile + 2, kHaloPixels = kHalo * kHalo, kTaps = 9;
inline constexpr int kPlaneGroup = 32;  // hidden channels at a time
inline constexpr int kPlaneChunk = 8;   // input channels in shared memory
inline constexpr int kOutputs = 2;      // hidden channels of a thread
inline constexpr int kPlaneSplits = 8;  // threads that share the input channels of a sum
inline constexpr unsigned kPlaneThreads = kPlaneTile * kPlaneGroup / kOutputs * kPlaneSplits;
inline constexpr int kChunkTaps = kPlaneChunk * kTaps;
/// Weights of a hidden channel in shared memory; odd, so that channels are in different banks.
inline constexpr int kWeightRow = kChunkTaps + 1;
inline constexpr int kTileFloats = kPlaneChunk * kHaloPixels;
inline constexpr int kPlaneParts = kPlaneSplits * kPlaneGroup * kTilePixels;  // of all sums
inline constexpr int kPlaneFloats = kTileFloats + kPlaneParts;  // parts replace the weights
static_assert(kPlaneGroup * kWeightRow <= kPlaneParts, "weights fit there");
/// Floats of a chunk that a thread loads.
inline constexpr int kTileLoads = (kTileFloats + kPlaneThreads - 1) / kPlaneThreads;
inline constexpr int kWeightLoads = (kPlaneGroup * kChunkTaps + kPlaneThreads - 1) / kPlaneThreads;

inline std::size_t plane_shared_bytes(int n_r) {
  return sizeof(float) * (kPlaneFloats + static_cast<std::size_t>(n_r) * kTilePixels);
}

inline int n_tiles(const PlaneSizes& s) {
  int n = 0;
  for (int axis = 0; axis < 3; ++axis)
    n += (s.n_rows[axis] + kPlaneTile - 1) / kPlaneTile *
         ((s.n_columns[axis] + kPlaneTile - 1) / kPlaneTile);
  return n;
}

/// One plane, and the tile of it with this upper left pixel.
struct PlaneTile {
  int axis, first_pixel, n_rows, n_columns, row, column;

  FASTBTS_DEVICE bool has(int y, int x) const {
    return y >= 0 && y < n_rows && x >= 0 && x < n_columns;
  }
};

FASTBTS_DEVICE PlaneTile tile_of(int tile, const PlaneSizes& s) {
  PlaneTile at{};
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const int across = (s.n_columns[axis] + kPlaneTile - 1) / kPlaneTile;
    const int n = across * ((s.n_rows[axis] + kPlaneTile - 1) / kPlaneTile);
    if (tile >= 0 && tile < n)
      at = {axis,
            at.first_pixel,
            s.n_rows[axis],
            s.n_columns[axis],
            tile / across * kPlaneTile,
            tile % across * kPlaneTile};
    else if (tile >= 0)
      at.first_pixel += s.n_rows[axis] * s.n_columns[axis];
    tile -= n;
  }
  return at;
}

/// What a thread loads of input channels [first, first + kPlaneChunk) while the block computes with
/// those before: of the tile with the pixels around it, zeros beyond the plane, and of the weights
/// to hidden channels [group, group + kPlaneGroup).
struct PlaneLoads {
  float tile[kTileLoads], weights[kWeightLoads];
};

FASTBTS_DEVICE PlaneLoads load_chunk(const float* planes, const float* conv, const PlaneSizes& s,
                                     const PlaneTile& at, int group, int first) {
  PlaneLoads loads;
  const int n_taps = 2 * s.n_r * kTaps;
#pragma unroll
  for (int n = 0; n < kTileLoads; ++n) {
    const int i = static_cast<int>(threadIdx.x + n * kPlaneThreads), p = i % kHaloPixels;
    const int c = first + i / kHaloPixels;
    const int y = at.row + p / kHalo - 1, x = at.column + p % kHalo - 1;
    const bool inside = c < 2 * s.n_r && at.has(y, x);
    loads.tile[n] = inside ? planes[c * s.n_pixels + at.first_pixel + y * at.n_columns + x] : 0.0F;
  }
#pragma unroll
  for (int n = 0; n < kWeightLoads; ++n) {
    const int i = static_cast<int>(threadIdx.x + n * kPlaneThreads);
    const int r = group + i / kChunkTaps, k = first * kTaps + i % kChunkTaps;
    const bool inside = i < kPlaneGroup * kChunkTaps && r < s.n_r && k < n_taps;
    loads.weights[n] = inside ? conv[r * n_taps + k] : 0.0F;
  }
  return loads;
}

FASTBTS_DEVICE void store_chunk(const PlaneLoads& loads, float* tile, float* weights) {
#pragma unroll
  for (int n = 0; n < kTileLoads; ++n) {
    const int i = static_cast<int>(threadIdx.x + n * kPlaneThreads);
    if (i < kTileFloats) tile[i] = loads.tile[n];
  }
#pragma unroll
  for (int n = 0; n < kWeightLoads; ++n) {
    const int i = static_cast<int>(threadIdx.x + n * kPlaneThreads);
    if (i < kPlaneGroup * kChunkTaps)
      weights[i / kChunkTaps * kWeightRow + i % kChunkTaps] = loads.weights[n];
  }
}

/// Adds one input channel to a row of the tile, for kOutputs hidden channels. fmaf is exact to the
/// last bit everywhere, so the bits are the same on every device.
FASTBTS_DEVICE void convolve(const float* image, const float* weights,
                             float (&sums)[kOutputs][kPlaneTile]) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    float row[kHalo];
#pragma unroll
    for (int x = 0; x < kHalo; ++x) row[x] = image[i * kHalo + x];
#pragma unroll
    for (int tap = 0; tap < kOutputs * 3; ++tap) {
      const int o = tap / 3, j = tap % 3;
      const float weight = weights[o * (kPlaneGroup / kOutputs) * kWeightRow + i * 3 + j];
#pragma unroll
      for (int x = 0; x < kPlaneTile; ++x) sums[o][x] = fmaf(weight, row[x + j], sums[o][x]);
    }
  }
}

/// This thread's part of the sums of hidden channels [group, group + kPlaneGroup), into `weights`
/// as (kPlaneSplits, kPlaneGroup, kTilePixels).
FASTBTS_DEVICE void add_parts(const float* planes, const float* conv, const PlaneSizes& s,
                              const PlaneTile& at, int group, float* tile, float* weights) {
  const int thread = static_cast<int>(threadIdx.x), row = thread % kPlaneTile;
  const int r = thread / kPlaneTile % (kPlaneGroup / kOutputs);
  const int split = thread / (kPlaneTile * kPlaneGroup / kOutputs);
  float sums[kOutputs][kPlaneTile] = {};
  PlaneLoads loads = load_chunk(planes, conv, s, at, group, 0);
  for (int first = 0; first < 2 * s.n_r; first += kPlaneChunk) {
    __syncthreads();
    store_chunk(loads, tile, weights);
    __syncthreads();
    loads = load_chunk(planes, conv, s, at, group, first + kPlaneChunk);
#pragma unroll
    for (int c = split; c < kPlaneChunk; c += kPlaneSplits)
      convolve(tile + c * kHaloPixels + row * kHalo, weights + r * kWeightRow + c * kTaps, sums);
  }
  __syncthreads();
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
    const int hidden = split * kPlaneGroup + o * (kPlaneGroup / kOutputs) + r;
#pragma unroll
    for (int x = 0; x < kPlaneTile; ++x)
      weights[hidden * kTilePixels + row * kPlaneTile + x] = sums[o][x];
  }
  __syncthreads();
}

/// Hidden channels of the group from the parts of their sums.
FASTBTS_DEVICE void activate(const PlaneWeights& w, const PlaneSizes& s, int axis, int group,
                             const float* parts, float* hidden) {
  for (int i = static_cast<int>(threadIdx.x); i < kPlaneGroup * kTilePixels; i += kPlaneThreads) {
    const int r = group + i / kTilePixels;
    if (r >= s.n_r) return;
    float sum = w.bias[r] + w.axis_bias[axis * s.n_r + r];
#pragma unroll
    for (int split = 0; split < kPlaneSplits; ++split)
      sum += parts[split * kPlaneGroup * kTilePixels + i];
    hidden[group * kTilePixels + i] = sum > 0.0F ? sum : 0.01F * sum;
  }
}

/// Output channels of the tile from its hidden ones; a thread sums a few channels of one pixel at a
/// time, so that their weights load at once.
template <typename T>
FASTBTS_DEVICE void expand_tile(const float* expand, const PlaneSizes& s, const PlaneTile& at,
                                const float* hidden, T* out) {
  constexpr int kChannels = 4, kStep = kPlaneThreads / kTilePixels;
  const int p = static_cast<int>(threadIdx.x) % kTilePixels;
  const int y = at.row + p / kPlaneTile, x = at.column + p % kPlaneTile;
  if (!at.has(y, x)) return;
  out += (at.first_pixel + y * at.n_columns + x) * s.pixel_step;
  for (int first = static_cast<int>(threadIdx.x) / kTilePixels; first < s.n_c_out;
       first += kChannels * kStep) {
    float sums[kChannels] = {};
#pragma unroll 2
    for (int r = 0; r < s.n_r; ++r) {
      const float value = hidden[r * kTilePixels + p];
#pragma unroll
      for (int k = 0; k < kChannels; ++k) {
        const int c = min(first + k * kStep, s.n_c - 1);
        sums[k] = fmaf(expand[c * s.n_r + r], value, sums[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      const int c = first + k * kStep;
      if (c < s.n_c_out) out[c * s.c_step] = from_float<T>(c < s.n_c ? sums[k] : 0.0F);
    }
  }
}

/// Step 2, for all three planes. One block per tile of 4 x 4 pixels, blockIdx.y the case. A thread
/// sums one row of the tile for two hidden channels over an eighth of the input channels; then one
/// pixel and output channel at a time.
template <typename T>
FASTBTS_KERNEL FASTBTS_BOUNDS(kPlaneThreads, 2) void plane_kernel(const float* planes,
                                                                  PlaneWeights w, PlaneSizes s,
                                                                  T* out) {
  FASTBTS_DYNAMIC_SHARED(float, tile);
  float* const weights = tile + kTileFloats;
  float* const hidden = tile + kPlaneFloats;
  const PlaneTile at = tile_of(static_cast<int>(blockIdx.x), s);
  planes += std::int64_t{blockIdx.y} * 2 * s.n_r * s.n_pixels;
  for (int group = 0; group < s.n_r; group += kPlaneGroup) {
    add_parts(planes, w.conv, s, at, group, tile, weights);
    activate(w, s, at.axis, group, weights, hidden);
  }
  __syncthreads();
  expand_tile(w.expand, s, at, hidden, out + std::int64_t{blockIdx.y} * s.n_c_out * s.n_pixels);
}

/// x + (z + y + at_x) / 3
FASTBTS_DEVICE float lifted(float x, float z, float y, float at_x) {
  return x + (z + y + at_x) * (1.0F / 3.0F);
}

/// Step 3 of dense tensors, blockIdx.y the case: one thread per group of voxels of a row. `x` has
/// the sizes; out may be x.
template <typename T, typename P>
FASTBTS_KERNEL void lift_rows_kernel(const T* x, const T* planes, BridgeVolume s, T* out,
                                     std::int64_t out_step) {
  const auto n_d = static_cast<unsigned>(s.n_d), n_h = static_cast<unsigned>(s.n_h);
  const unsigned n_w = static_cast<unsigned>(s.n_w), groups = n_w / P::kItems;
  const unsigned n = static_cast<unsigned>(s.n_c) * n_d * n_h * groups;
  x += blockIdx.y * s.b_step;
  out += blockIdx.y * out_step;
  planes += std::int64_t{blockIdx.y} * s.n_c * s.n_pixels;
  for (std::int64_t i = thread_index(); i < n; i += n_threads_of_grid()) {
    const auto group = static_cast<unsigned>(i);
    const unsigned row = group / groups, w = group % groups * P::kItems;
    const unsigned slice = row / n_h, h = row % n_h, d = slice % n_d;
    const T* const plane = planes + slice / n_d * s.n_pixels;
    const P z = load_pack<P>(plane + h * n_w + w);
    const P y = load_pack<P>(plane + n_h * n_w + d * n_w + w);
    const float at_x = to_float(plane[(n_h + n_d) * n_w + d * n_h + h]);
    P voxels = load_pack<P>(x + row * n_w + w);
#pragma unroll
    for (int k = 0; k < P::kItems; ++k)
      voxels.items[k] = from_float<T>(
          lifted(to_float(voxels.items[k]), to_float(z.items[k]), to_float(y.items[k]), at_x));
    store_pack(out + row * n_w + w, voxels);
  }
}

/// Step 3 of channels-last tensors: one thread per group of channels of a voxel. Of out n_c_out
/// channels are written, those after the first n_c with zeros; planes have as many.
template <typename T, typename P>
FASTBTS_KERNEL void lift_voxels_kernel(const T* x, const T* planes, BridgeVolume s, T* out,
                                       std::int64_t out_step, int out_pitch, int n_c_out) {
  const auto n_d = static_cast<unsigned>(s.n_d), n_h = static_cast<unsigned>(s.n_h);
  const unsigned n_w = static_cast<unsigned>(s.n_w);
  const unsigned groups = static_cast<unsigned>(n_c_out) / P::kItems;
  x += blockIdx.y * s.b_step;
  out += blockIdx.y * out_step;
  planes += std::int64_t{blockIdx.y} * n_c_out * s.n_pixels;
  for (std::int64_t i = thread_index(); i < n_d * n_h * n_w * groups; i += n_threads_of_grid()) {
    const auto group = static_cast<unsigned>(i);
    const unsigned voxel = group / groups, c = group % groups * P::kItems;
    const unsigned w = voxel % n_w, row = voxel / n_w, h = row % n_h, d = row / n_h;
    const auto at = [&](unsigned pixel) { return load_pack<P>(planes + pixel * n_c_out + c); };
    const P z = at(h * n_w + w), y = at(n_h * n_w + d * n_w + w);
    const P at_x = at((n_h + n_d) * n_w + d * n_h + h);
    P voxels = load_pack<P>(x + voxel * s.w_step + c);
#pragma unroll
    for (int k = 0; k < P::kItems; ++k) {
      const float value = lifted(to_float(voxels.items[k]), to_float(z.items[k]),
                                 to_float(y.items[k]), to_float(at_x.items[k]));
      voxels.items[k] = from_float<T>(static_cast<int>(c) + k < s.n_c ? value : 0.0F);
    }
    store_pack(out + voxel * out_pitch + c, voxels);
  }
}

}  // namespace fastbts
