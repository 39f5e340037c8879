#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct Conv3dArgs {
  AnyView<5> x;
  View<const float, 3> affine;  // null: x as it is
  AnyView<5> tiles;
  View<const float, 1> bias;  // null: none
  int stride, spread, brick;
  AnyView<5, void> out;
  View<float, 4> stats;  // null: not wanted
};

/// A 3D convolution with kernel 3, padding 1, or kernel 1, of channels-last features; also a
/// transposed convolution with kernel 2, stride 2 (`spread`), which is a kernel 1 to 8 times the
/// channels.
///   y = conv(a(x)) + bias;  a(x) = leaky_relu(x affine[b, 0, c] + affine[b, 1, c]), slope 0.01
/// so that the normalisation before it costs no pass of its own. Padding is zero after a.
///   x       (B, D, H, W, C)             floats, rows dense  read
///   affine  (B, 2, C)                   float32, dense      read     scale, shift; or none
///   tiles   (N/32, C/16, taps, 32, 16)  as x, dense         read     weights, see below
///   bias    (N)                         float32, dense      read     or none
///   stride  1, or 2 with kernel 3
///   spread  1, or 2 with kernel 1
///   brick   64, or 256 with stride 1: voxels of y that a block computes. Large ones read less,
///           small ones give small volumes enough blocks; sums depend on it
///   out     (B, D', H', W', N/spread^3) floats, any strides written
///   stats   (B, N, T, 2)                float32, dense      written  or none; spread 1 only
/// D' = spread ((D - 1) / stride + 1), also H', W'. taps is kernel^3. tiles[n/32, c/16, t, n%32,
/// c%16] is the weight of input c, output n, tap t = (kd 3 + kh) 3 + kw; sizes are rounded up, and
/// zeros fill the rest. With spread 2 output n = (child C' + c') of voxel (d, h, w) is channel c'
/// of voxel (2d + child / 4, 2h + child / 2 % 2, 2w + child % 2). stats are the sum and the sum of
/// squares of y over each of T bricks (`conv3d_bricks`), for `fold_stats`.
/// On the CPU floats are float32. On a CUDA device x and tiles are float16, out float16 or float32,
/// sums float32: the order is fixed, so that two runs give the same bits.
void conv3d(const Conv3dArgs& args, int n_threads, Stream stream);

void conv3d_cpu(const Conv3dArgs& args, int n_threads);
void conv3d_cuda(const Conv3dArgs& args, Stream stream);

/// Bricks along D, H, W that cover y of this shape, of (2, 4, 8) = 64 or (4, 8, 8) = 256 voxels; T
/// is their product, brick (i, j, k) is number (i n_h + j) n_w + k.
constexpr Shape<3> conv3d_brick(int brick) {
  return brick == 64 ? Shape<3>{2, 4, 8} : Shape<3>{4, 8, 8};
}
inline Shape<3> conv3d_bricks(const Shape<3>& shape, int brick) {
  const Shape<3> step = conv3d_brick(brick);
  Shape<3> n{};
  for (std::size_t axis = 0; axis < 3; ++axis)
    n[axis] = (shape[axis] + step[axis] - 1) / step[axis];
  return n;
}

/// (D, H, W) of y before it is spread.
inline Shape<3> conv3d_size(const Conv3dArgs& args) {
  Shape<3> size{};
  for (std::size_t axis = 0; axis < 3; ++axis)
    size[axis] = (args.x.shape[axis + 1] - 1) / args.stride + 1;
  return size;
}

inline constexpr std::int64_t kTileColumns = 32, kTileChannels = 16;

}  // namespace fastbts
