#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/semantic_bridge.h"

// Plain loops, as a specification of the CUDA kernels. On a CPU OpenVINO runs the bridge as its own
// operations: replacing them by vectorised loops did not make the network faster.
namespace fastbts {
namespace {

/// For the planes z, y, x: axes of the volume with the projected one first.
constexpr std::array<std::array<std::size_t, 3>, 3> kAxes{{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}}};

/// A dense array (B, C, rows, columns).
struct Planes {
  explicit Planes(const Shape<4>& shape)
      : values(static_cast<std::size_t>(n_elements(shape))),
        view{values.data(), shape, dense_strides(shape)} {}

  std::vector<float> values;
  View<float, 4> view;
};

/// Mean and maximum of a volume (D, H, W) along D.
void project(const View<const float, 3>& volume, const View<float, 2>& mean,
             const View<float, 2>& max) {
  const auto [n_d, n_h, n_w] = volume.shape;
  for (std::int64_t h = 0; h < n_h; ++h) {
    for (std::int64_t w = 0; w < n_w; ++w) {
      float sum = 0, largest = -std::numeric_limits<float>::infinity();
      for (std::int64_t d = 0; d < n_d; ++d) {
        sum += *volume.at(d, h, w);
        largest = std::max(largest, *volume.at(d, h, w));
      }
      *mean.at(h, w) = sum / static_cast<float>(n_d);
      *max.at(h, w) = largest;
    }
  }
}

/// Adds row h of the 3 x 3 convolution of a plane (2R, rows, columns) to `sums`.
void add_convolution(const View<float, 3>& plane, const View<const float, 3>& weights,
                     std::int64_t h, float* sums) {
  const auto [n_channels, n_rows, n_columns] = plane.shape;
  for (std::int64_t i = 0; i < n_channels * 9; ++i) {
    const std::int64_t c = i / 9, from = h + i / 3 % 3 - 1, shift = i % 3 - 1;
    if (from < 0 || from >= n_rows) continue;
    const float weight = *weights.at(c, i / 3 % 3, i % 3);
    const float* const values = plane.at(c, from);
    for (std::int64_t w = 0; w < n_columns; ++w) {
      if (0 <= w + shift && w + shift < n_columns) sums[w] += weight * values[w + shift];
    }
  }
}

/// Row h of step 2 for one case.
void convolve_row(const SemanticBridgeArgs& args, std::size_t axis, const View<float, 3>& plane,
                  std::int64_t h, const View<float, 3>& out) {
  const std::int64_t n_r = args.conv.shape[0], n = plane.shape[2];
  std::vector<float> hidden(static_cast<std::size_t>(n_r * n));
  for (std::int64_t r = 0; r < n_r; ++r) {
    float* const row = hidden.data() + r * n;
    std::fill_n(row, n, *args.bias.at(r) + *args.axis_bias.at(axis, r));
    add_convolution(plane, args.conv.slice(r), h, row);
    std::transform(row, row + n, row, leaky_relu);
  }
  for (std::int64_t c = 0; c < out.shape[0]; ++c) {
    for (std::int64_t w = 0; w < n; ++w) {
      float sum = 0;
      for (std::int64_t r = 0; r < n_r; ++r) sum += *args.expand.at(c, r) * hidden[r * n + w];
      *out.at(c, h, w) = sum;
    }
  }
}

/// Steps 1 and 2 along one axis.
Planes plane_along(const SemanticBridgeArgs& args, std::size_t axis, int n_threads) {
  const View<const float, 5> volumes = args.reduced.as<float>().permuted(kAxes[axis]);
  const std::int64_t n_b = volumes.shape[0], n_r = volumes.shape[1], n_rows = volumes.shape[3];
  const Planes projected({n_b, 2 * n_r, n_rows, volumes.shape[4]});
  Planes out({n_b, args.x.shape[1], n_rows, volumes.shape[4]});
  parallel_for(n_b * n_r, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto channels = projected.view.slice(i / n_r);
      project(volumes.slice(i / n_r).slice(i % n_r), channels.slice(i % n_r),
              channels.slice(n_r + i % n_r));
    }
  });
  parallel_for(n_b * n_rows, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      convolve_row(args, axis, projected.view.slice(i / n_rows), i % n_rows,
                   out.view.slice(i / n_rows));
    }
  });
  return out;
}

/// Step 3 for row (d, h) of one channel; z and y are rows, q_x a number.
void lift_row(const float* x, const float* z, const float* y, float q_x, std::int64_t n,
              float* out) {
  for (std::int64_t w = 0; w < n; ++w) out[w] = x[w] + (z[w] + y[w] + q_x) * (1.0F / 3.0F);
}

}  // namespace

void semantic_bridge_cpu(const SemanticBridgeArgs& args, int n_threads) {
  const Planes z = plane_along(args, 0, n_threads), y = plane_along(args, 1, n_threads),
               x = plane_along(args, 2, n_threads);
  const auto [n_b, n_c, n_d, n_h, n_w] = args.x.shape;
  const auto volume = args.x.as<float>();
  const auto out = args.out.as<float>();
  const auto lift = [&, n_c = n_c, n_d = n_d, n_h = n_h, n_w = n_w](std::int64_t slice) {
    const std::int64_t b = slice / n_d / n_c, c = slice / n_d % n_c, d = slice % n_d;
    for (std::int64_t h = 0; h < n_h; ++h)
      lift_row(volume.at(b, c, d, h), z.view.at(b, c, h), y.view.at(b, c, d),
               *x.view.at(b, c, d, h), n_w, out.at(b, c, d, h));
  };
  parallel_for(n_b * n_c * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t slice = begin; slice < end; ++slice) lift(slice);
  });
}

}  // namespace fastbts
