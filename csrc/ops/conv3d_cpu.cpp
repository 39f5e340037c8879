#include <algorithm>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/conv3d.h"

// Plain loops, as a specification of the CUDA kernel: on a CPU OpenVINO runs the network.
namespace fastbts {
namespace {

/// a(x), dense (B, D, H, W, C).
std::vector<float> activated(const Conv3dArgs& args) {
  const auto x = args.x.as<float>();
  const auto [n_b, n_d, n_h, n_w, n_c] = x.shape;
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(n_elements(x.shape)));
  for (std::int64_t row = 0; row < n_b * n_d * n_h * n_w; ++row) {
    const std::int64_t b = row / n_w / n_h / n_d;
    const float* const in = x.at(b, row / n_w / n_h % n_d, row / n_w % n_h, row % n_w);
    for (std::int64_t c = 0; c < n_c; ++c) {
      const auto& affine = args.affine;
      values.push_back(affine.data ? leaky_relu(in[c] * *affine.at(b, 0, c) + *affine.at(b, 1, c))
                                   : in[c]);
    }
  }
  return values;
}

/// The weights as (taps, C, N), all rounded up as in the tiles.
std::vector<float> columns(const View<const float, 5>& tiles) {
  const auto [n_groups, n_chunks, n_taps, n_n, n_c] = tiles.shape;
  std::vector<float> values(static_cast<std::size_t>(n_elements(tiles.shape)));
  const std::int64_t n_columns = n_groups * n_n, n_channels = n_chunks * n_c;
  for (std::int64_t t = 0; t < n_taps; ++t)
    for (std::int64_t c = 0; c < n_channels; ++c)
      for (std::int64_t n = 0; n < n_columns; ++n)
        values[static_cast<std::size_t>((t * n_channels + c) * n_columns + n)] =
            *tiles.at(n / n_n, c / n_c, t, n % n_n, c % n_c);
  return values;
}

struct Conv {
  const Conv3dArgs& args;
  std::vector<float> x, weights;
  Shape<3> size;
  std::int64_t n_out, n_columns, n_channels;
};

/// Adds one tap of one voxel of the input to the sums (n_columns).
void add_voxel(const Conv& conv, std::int64_t voxel, std::int64_t tap, float* sums) {
  const std::int64_t n_c = conv.args.x.shape[4];
  const float* const x = conv.x.data() + voxel * n_c;
  const float* weights = conv.weights.data() + tap * conv.n_channels * conv.n_columns;
  for (std::int64_t c = 0; c < n_c; ++c, weights += conv.n_columns)
    for (std::int64_t n = 0; n < conv.n_columns; ++n) sums[n] += x[c] * weights[n];
}

/// y of one voxel, for all columns.
void add_taps(const Conv& conv, std::int64_t b, const Shape<3>& at, float* sums) {
  const auto& shape = conv.args.x.shape;
  const std::int64_t n_taps = conv.args.tiles.shape[2], kernel = n_taps == 1 ? 1 : 3;
  for (std::int64_t tap = 0; tap < n_taps; ++tap) {
    const Shape<3> shift{tap / kernel / kernel, tap / kernel % kernel, tap % kernel};
    std::int64_t voxel = b;
    bool inside = true;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const std::int64_t i = at[axis] * conv.args.stride + shift[axis] - kernel / 2;
      inside = inside && 0 <= i && i < shape[axis + 1];
      voxel = voxel * shape[axis + 1] + i;
    }
    if (inside) add_voxel(conv, voxel, tap, sums);
  }
}

void write(const Conv& conv, std::int64_t b, const Shape<3>& at, const float* sums) {
  const auto out = conv.args.out.as<float>();
  const std::int64_t n_c = out.shape[4], s = conv.args.spread;
  for (std::int64_t n = 0; n < conv.n_out; ++n) {
    const std::int64_t child = n / n_c;
    *out.at(b, s * at[0] + child / 4, s * at[1] + child / 2 % 2, s * at[2] + child % 2, n % n_c) =
        sums[n];
  }
}

void add_stats(const Conv& conv, std::int64_t b, std::int64_t brick, const float* sums) {
  for (std::int64_t n = 0; n < conv.n_out; ++n) {
    float* const stats = conv.args.stats.at(b, n, brick);
    stats[0] += sums[n];
    stats[1] += sums[n] * sums[n];
  }
}

/// All voxels of one brick of one case.
void convolve_brick(const Conv& conv, std::int64_t b, std::int64_t brick) {
  const Shape<3> n = conv3d_bricks(conv.size, conv.args.brick),
                 step = conv3d_brick(conv.args.brick);
  const Shape<3> first{brick / n[2] / n[1] * step[0], brick / n[2] % n[1] * step[1],
                       brick % n[2] * step[2]};
  std::vector<float> sums(static_cast<std::size_t>(conv.n_columns));
  const std::int64_t n_voxels = step[0] * step[1] * step[2];
  for (std::int64_t v = 0; v < n_voxels; ++v) {
    const Shape<3> at{first[0] + v / step[2] / step[1], first[1] + v / step[2] % step[1],
                      first[2] + v % step[2]};
    if (at[0] >= conv.size[0] || at[1] >= conv.size[1] || at[2] >= conv.size[2]) continue;
    std::fill(sums.begin(), sums.end(), 0.0F);
    add_taps(conv, b, at, sums.data());
    for (std::int64_t i = 0; conv.args.bias.data && i < conv.n_out; ++i)
      sums[static_cast<std::size_t>(i)] += *conv.args.bias.at(i);
    write(conv, b, at, sums.data());
    if (conv.args.stats.data) add_stats(conv, b, brick, sums.data());
  }
}

}  // namespace

void conv3d_cpu(const Conv3dArgs& args, int n_threads) {
  const auto tiles = args.tiles.as<float>();
  const std::int64_t s = args.spread, n_out = args.out.shape[4] * s * s * s;
  const Conv conv{args,
                  activated(args),
                  columns(tiles),
                  conv3d_size(args),
                  n_out,
                  tiles.shape[0] * tiles.shape[3],
                  tiles.shape[1] * tiles.shape[4]};
  const Shape<3> n = conv3d_bricks(conv.size, args.brick);
  const std::int64_t n_bricks = n[0] * n[1] * n[2];
  if (args.stats.data)
    std::fill_n(args.stats.data, static_cast<std::size_t>(n_elements(args.stats.shape)), 0.0F);
  parallel_for(args.x.shape[0] * n_bricks, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) convolve_brick(conv, i / n_bricks, i % n_bricks);
  });
}

}  // namespace fastbts
