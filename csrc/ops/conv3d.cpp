#include "ops/conv3d.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

void check_options(const Conv3dArgs& args) {
  const std::int64_t taps = args.tiles.shape[2];
  require<InputError>(taps == 1 || taps == 27, "conv3d: tiles: expected 1 or 27 taps, got ", taps);
  require<OptionsError>(args.stride == 1 || (args.stride == 2 && taps == 27),
                        "conv3d: stride: expected 1, or 2 with 27 taps, got ", args.stride);
  require<OptionsError>(args.spread == 1 || (args.spread == 2 && taps == 1),
                        "conv3d: spread: expected 1, or 2 with 1 tap, got ", args.spread);
  require<OptionsError>(args.brick == 64 || (args.brick == 256 && args.stride == 1),
                        "conv3d: brick: expected 64, or 256 with stride 1, got ", args.brick);
}

void check_shapes(const Conv3dArgs& args) {
  const std::int64_t n_b = args.x.shape[0], n_in = args.x.shape[4], s = args.spread;
  const std::int64_t n_out = args.out.shape[4] * s * s * s;
  const auto groups = [](std::int64_t n, std::int64_t size) { return (n + size - 1) / size; };
  const Shape<3> size = conv3d_size(args), bricks = conv3d_bricks(size, args.brick);
  require_shape("conv3d: out", args.out.shape,
                {n_b, s * size[0], s * size[1], s * size[2], args.out.shape[4]});
  require_shape("conv3d: tiles", args.tiles.shape,
                {groups(n_out, kTileColumns), groups(n_in, kTileChannels), args.tiles.shape[2],
                 kTileColumns, kTileChannels});
  if (args.affine.data) require_shape("conv3d: affine", args.affine.shape, {n_b, 2, n_in});
  if (args.bias.data) require_shape("conv3d: bias", args.bias.shape, {n_out});
  if (!args.stats.data) return;
  require<OptionsError>(s == 1, "conv3d: stats: expected none with spread 2");
  require_shape("conv3d: stats", args.stats.shape,
                {n_b, n_out, bricks[0] * bricks[1] * bricks[2], 2});
}

void check_layout(const Conv3dArgs& args) {
  require_dense(args.tiles, "conv3d: tiles");
  if (args.affine.data) require_dense(args.affine, "conv3d: affine");
  if (args.stats.data) require_dense(args.stats, "conv3d: stats");
}

void check_device_types(const Conv3dArgs& args) {
  require<InputError>(args.x.dtype == DType::kFloat16 && args.tiles.dtype == DType::kFloat16,
                      "conv3d: x, tiles: expected float16 on a CUDA device");
  require<InputError>(args.out.dtype == DType::kFloat16 || args.out.dtype == DType::kFloat32,
                      "conv3d: out: expected float16 or float32");
}

}  // namespace

void conv3d(const Conv3dArgs& args, int n_threads, Stream stream) {
  const auto [n_b, n_d, n_h, n_w, n_in] = args.x.shape;
  require<InputError>(n_b > 0 && n_d > 0 && n_h > 0 && n_w > 0 && n_in > 0,
                      "conv3d: x: expected at least one voxel and channel, got shape ",
                      args.x.shape);
  require<InputError>(args.out.shape[4] > 0, "conv3d: out: expected at least one channel");
  check_options(args);
  check_shapes(args);
  check_layout(args);
  on_device(
      args.x.device, [&] { conv3d_cpu(args, n_threads); },
      [&](auto) {
        check_device_types(args);
        conv3d_cuda(args, stream);
      });
}

}  // namespace fastbts
