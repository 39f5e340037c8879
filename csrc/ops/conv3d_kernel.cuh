#pragma once

#include "core/cuda/mma.h"
#include "core/cuda/pack.h"

namespace fastbts {

/// Strides count elements; the elements of one case must span fewer than 2^31.
struct ConvSizes {
  int in[3], n_in;                // x: voxels, channels
  int size[3], n_out;             // y before it is spread: voxels, columns
  int bricks[3];                  // bricks that cover y
  int spread, n_c;                // channels of out
  std::int64_t x_case, out_case;  // strides of cases
  int x[3];                       // strides of x: d, h, w
  int out[4];                     // strides of out: d, h, w, c
  bool vectors;                   // rows of x may be read 16 bytes at a time
  bool pairs;                     // out may be written two channels at a time
};

template <typename Out>
struct ConvPointers {
  const Half* x;
  const float* affine;  // or null
  const Half* tiles;
  const float* bias;  // or null
  Out* out;
  float* stats;  // or null
};

/// Blocks that share a multiprocessor; Turing, which has no asynchronous copies, lacks registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr int kConvBlocks = 3;
#else
inline constexpr int kConvBlocks = 4;
#endif

/// Of the network's 22 convolutions at 144 x 176 x 144 voxels: 220 GFLOP, 251 with what bricks
/// waste, ideal 0.28 ms at 790 TFLOP/s; 0.48 GB, ideal 0.16 ms at 3.0 TB/s, 0.11 at 4.3 TB/s.
/// Estimate 0.7-1.0 ms (never run on a GPU).
///
/// One block computes a brick of y for 32 columns with 4 warps, by 16 input channels (a chunk) at a
/// time. The brick's part of x, with a border for the taps, is activated on its way to shared
/// memory, once, and serves all taps; weights follow one plane of taps ahead of their use.
template <int kStride, int kKernel, bool kSmall>
struct ConvShape {
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kD = kSmall ? 2 : 4, kH = kSmall ? 4 : 8, kW = 8;
  static constexpr int kRowTiles = kD * kH * kW / kWarps / 16;  // of 16 voxels, per warp
  static constexpr int kHaloD = (kD - 1) * kStride + kKernel, kHaloH = (kH - 1) * kStride + kKernel,
                       kHaloW = (kW - 1) * kStride + kKernel;
  static constexpr int kHalo = kHaloD * kHaloH * kHaloW;
  static constexpr int kPlaneTaps = kKernel * kKernel;  // taps whose weights are loaded at once
  static constexpr int kTile = 32 * 16;                 // weights of one tap
  static constexpr int kTileRows = 16 / kW * kHaloW;    // rows of input between tiles of a warp
  static_assert(kRowTiles == 1 || (kStride == 1 && kRowTiles * 16 == kH * kW), "one d per warp");
  // Rows of 16 channels with a gap, so that the 8 rows of a matrix are in different banks. There is
  // no room for it with stride 2, where four of them share each bank.
  static constexpr int kPitch = kStride == 1 ? 24 : 16;
  static constexpr int kInputHalves = kHalo * kPitch;
  static constexpr int kSharedHalves = kInputHalves + 2 * kPlaneTaps * kTile;
  static_assert(kSharedHalves * 2 <= 48 * 1024, "what a block has without asking for more");
};

/// Where 8 of the 16 weights of row i are: rows of 32 bytes whose halves change places every four
/// rows, so that the 8 rows of a matrix are in different banks.
FASTBTS_DEVICE int row_at(int i, int half) { return i * 16 + (half ^ (i >> 2 & 1)) * 8; }

/// 8 channels in four registers, as one access of 16 bytes.
struct alignas(16) Half8 {
  std::uint32_t pairs[4];
};

/// Channels [first, first + 8) of the voxel at x, zeros beyond n_in.
FASTBTS_DEVICE Half8 load_channels(const Half* x, int first, const ConvSizes& s) {
  if (s.vectors) return first < s.n_in ? load_pack<Half8>(x + first) : Half8{};
  Half8 result{};
  for (int i = 0; i < 4; ++i) {
    const int c = first + 2 * i;
    result.pairs[i] =
        packed(c < s.n_in ? to_float(x[c]) : 0.0F, c + 1 < s.n_in ? to_float(x[c + 1]) : 0.0F);
  }
  return result;
}

/// Scale and shift of 8 channels.
struct Affine8 {
  float scale[8], shift[8];

  FASTBTS_DEVICE Affine8(const float* affine, int first, int n_in) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool inside = affine != nullptr && first + i < n_in;
      scale[i] = inside ? affine[first + i] : 0.0F;
      shift[i] = inside ? affine[n_in + first + i] : 0.0F;
    }
  }

  FASTBTS_DEVICE Half8 activated(const Half8& x) const {
    Half8 result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float first, second;
      unpack(x.pairs[i], first, second);
      first = fmaf(first, scale[2 * i], shift[2 * i]);
      second = fmaf(second, scale[2 * i + 1], shift[2 * i + 1]);
      result.pairs[i] = packed(fmaxf(first, 0.01F * first), fmaxf(second, 0.01F * second));
    }
    return result;
  }
};

/// Brings one chunk of the brick's input, which begins at voxel `first` and may begin or end
/// outside of x, into shared memory; each thread asks for a few voxels before it waits for the
/// first.
template <typename Shape>
FASTBTS_DEVICE void load_input(const Half* x, const float* affine, const ConvSizes& s,
                               const int (&first)[3], int chunk, Half* shared) {
  constexpr int kAhead = 2, kStep = Shape::kThreads / 2;
  const int half = static_cast<int>(threadIdx.x) % 2, channel = chunk * 16 + half * 8;
  const Affine8 change(affine, channel, s.n_in);
  for (int begin = static_cast<int>(threadIdx.x) / 2; begin < Shape::kHalo;
       begin += kAhead * kStep) {
    Half8 values[kAhead];
    bool inside[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = begin + j * kStep, w = first[2] + i % Shape::kHaloW,
                h = first[1] + i / Shape::kHaloW % Shape::kHaloH,
                d = first[0] + i / Shape::kHaloW / Shape::kHaloH;
      inside[j] = i < Shape::kHalo && d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1] && w >= 0 &&
                  w < s.in[2];
      values[j] =
          inside[j] ? load_channels(x + d * s.x[0] + h * s.x[1] + w * s.x[2], channel, s) : Half8{};
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = begin + j * kStep;
      if (inside[j] && affine != nullptr) values[j] = change.activated(values[j]);
      if (i < Shape::kHalo) store_pack(shared + i * Shape::kPitch + half * 8, values[j]);
    }
  }
}

/// Begins to bring the weights of one plane of taps into shared memory.
template <typename Shape>
FASTBTS_DEVICE void begin_weights(const Half* tiles, Half* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kPlaneTaps * Shape::kTile / 8;
       i += Shape::kThreads)
    copy_async(shared + row_at(i / 2, i % 2), tiles + i * 8);
}

/// sums += the products of one tap: kRowTiles x 4 tiles of 16 voxels x 8 columns. `row` is the
/// row that this lane gives of the first tile for the first tap; `shift` is that of the tap, in
/// rows.
template <typename Shape>
FASTBTS_DEVICE void multiply_tap(const Half* row, const Half* weights, int shift,
                                 float (&sums)[Shape::kRowTiles][4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int column = lane / 16 * 8 + lane % 8;
  std::uint32_t b[2][4];
  load_matrices(weights + row_at(column, lane / 8 % 2), b[0]);
  load_matrices(weights + row_at(column + 16, lane / 8 % 2), b[1]);
#pragma unroll
  for (int t = 0; t < Shape::kRowTiles; ++t) {
    std::uint32_t a[4];
    load_matrices(row + (t * Shape::kTileRows + shift) * Shape::kPitch, a);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      multiply_add(a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], sums[t][j]);
  }
}

/// Where voxel i of a brick is, from the brick's first voxel.
template <typename Shape>
FASTBTS_DEVICE void brick_voxel(int i, int (&at)[3]) {
  at[0] = i / Shape::kW / Shape::kH;
  at[1] = i / Shape::kW % Shape::kH;
  at[2] = i % Shape::kW;
}

/// Writes columns n and n + 1 of voxel `at` of y.
template <typename Out>
FASTBTS_DEVICE void write_pair(Out* out, const ConvSizes& s, const int (&at)[3], int n,
                               float (&values)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int child = (n + i) / s.n_c, c = (n + i) % s.n_c;
    Out* const target = out + (s.spread * at[0] + child / 4) * s.out[0] +
                        (s.spread * at[1] + child / 2 % 2) * s.out[1] +
                        (s.spread * at[2] + child % 2) * s.out[2] + c * s.out[3];
    if (s.pairs) {
      const Pack<Out, 2> pair{{from_float<Out>(values[0]), from_float<Out>(values[1])}};
      return store_pack(target, pair);
    }
    if (n + i < s.n_out) *target = from_float<Out>(values[i]);
  }
}

/// Adds up the brick's sums and sums of squares of each column in a fixed order: over the lanes
/// that have it, then over the warps.
template <typename Shape>
FASTBTS_DEVICE void write_stats(const float (&totals)[4][2][2], int first_column, int n_out,
                                float* shared, float* stats, std::int64_t column_step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    float total = totals[i / 4][i / 2 % 2][i % 2];
    for (int step = 4; step < kWarp; step *= 2) total += __shfl_xor_sync(kAllLanes, total, step);
    const int column = i / 4 * 8 + lane % 4 * 2 + i / 2 % 2;
    if (lane < 4) shared[(warp * 32 + column) * 2 + i % 2] = total;
  }
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x) / 2;
  if (threadIdx.x >= 64 || first_column + column >= n_out) return;
  float total = 0.0F;
  for (int w = 0; w < Shape::kWarps; ++w) total += shared[w * 64 + static_cast<int>(threadIdx.x)];
  stats[column * column_step + threadIdx.x % 2] = total;
}

/// blockIdx.x: the brick, y: 32 columns, z: the case.
template <int kStride, int kKernel, bool kSmall, typename Out>
FASTBTS_KERNEL void FASTBTS_BOUNDS(128, kKernel == 1 ? 3 : kConvBlocks)
    conv3d_kernel(ConvPointers<Out> p, ConvSizes s) {
  using Shape = ConvShape<kStride, kKernel, kSmall>;
  FASTBTS_DYNAMIC_SHARED(Half, input);
  Half* const weights = input + Shape::kInputHalves;
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const int brick = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.z),
            first_column = static_cast<int>(blockIdx.y) * 32;
  const int first[3] = {brick / s.bricks[2] / s.bricks[1] * Shape::kD,
                        brick / s.bricks[2] % s.bricks[1] * Shape::kH,
                        brick % s.bricks[2] * Shape::kW};
  const int first_in[3] = {first[0] * kStride - kKernel / 2, first[1] * kStride - kKernel / 2,
                           first[2] * kStride - kKernel / 2};
  const int n_chunks = (s.n_in + 15) / 16, n_planes = n_chunks * kKernel;
  constexpr int kPlane = Shape::kPlaneTaps * Shape::kTile;
  const Half* const x = p.x + b * s.x_case;
  const float* const affine = p.affine ? p.affine + std::int64_t{b} * 2 * s.n_in : nullptr;
  const Half* const tiles = p.tiles + static_cast<std::int64_t>(blockIdx.y) * n_planes * kPlane;

  int at_row[3];
  brick_voxel<Shape>(warp * Shape::kRowTiles * 16 + lane % 16, at_row);
  const Half* const row = input + lane / 16 * 8 +
                          ((at_row[0] * Shape::kHaloH + at_row[1]) * Shape::kHaloW + at_row[2]) *
                              kStride * Shape::kPitch;
  float sums[Shape::kRowTiles][4][4] = {};

  begin_weights<Shape>(tiles, weights);
  commit_copies();
  for (int plane = 0; plane < n_planes; ++plane) {
    if (plane + 1 < n_planes)
      begin_weights<Shape>(tiles + static_cast<std::int64_t>(plane + 1) * kPlane,
                           weights + (plane + 1) % 2 * kPlane);
    commit_copies();
    if (plane % kKernel == 0) load_input<Shape>(x, affine, s, first_in, plane / kKernel, input);
    wait_copies<1>();
    __syncthreads();
#pragma unroll kKernel
    for (int tap = 0; tap < Shape::kPlaneTaps; ++tap) {
      const int shift =
          (plane % kKernel * Shape::kHaloH + tap / kKernel) * Shape::kHaloW + tap % kKernel;
      multiply_tap<Shape>(row, weights + plane % 2 * kPlane + tap * Shape::kTile, shift, sums);
    }
    __syncthreads();
  }

  float totals[4][2][2] = {};  // of the columns that this lane has
#pragma unroll
  for (int t = 0; t < Shape::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int j = i / 2, row = i % 2;
      const int n = first_column + j * 8 + lane % 4 * 2;
      int at[3];
      brick_voxel<Shape>((warp * Shape::kRowTiles + t) * 16 + row * 8 + lane / 4, at);
      for (int axis = 0; axis < 3; ++axis) at[axis] += first[axis];
      if (at[0] >= s.size[0] || at[1] >= s.size[1] || at[2] >= s.size[2] || n >= s.n_out) continue;
      float values[2] = {sums[t][j][row * 2], sums[t][j][row * 2 + 1]};
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (p.bias && n + k < s.n_out) values[k] += p.bias[n + k];
        totals[j][k][0] += values[k];
        totals[j][k][1] += values[k] * values[k];
      }
      write_pair(p.out + b * s.out_case, s, at, n, values);
    }
  }
  if (!p.stats) return;
  const std::int64_t n_bricks = static_cast<std::int64_t>(s.bricks[0]) * s.bricks[1] * s.bricks[2];
  float* const stats =
      p.stats + ((static_cast<std::int64_t>(b) * s.n_out + first_column) * n_bricks + brick) * 2;
  write_stats<Shape>(totals, first_column, s.n_out, reinterpret_cast<float*>(input), stats,
                     n_bricks * 2);
}

}  // namespace fastbts
