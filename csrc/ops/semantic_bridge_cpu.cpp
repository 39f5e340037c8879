#include <algorithm>
#include <array>
#include <limits>

#include "core/parallel.h"
#include "ops/semantic_bridge.h"

namespace fastbts {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// Sums, in the end means, and maxima of one channel.
struct Plane {
  View<float, 2> sum, max;
};

float larger(float a, float b) { return a > b ? a : b; }

/// Adds a row to running sums and maxima; none of the five overlap.
void add_row(const float* __restrict row, std::int64_t n, float* __restrict y_sum, float* __restrict y_max,
             float* __restrict z_sum, float* __restrict z_max) {
  for (std::int64_t w = 0; w < n; ++w) {
    y_sum[w] += row[w];
    y_max[w] = larger(row[w], y_max[w]);
    z_sum[w] += row[w];
    z_max[w] = larger(row[w], z_max[w]);
  }
}

/// Sum and maximum of a row, in eight lanes that are combined in order: fixed bits, and SIMD.
std::array<float, 2> reduce_row(const float* row, std::int64_t n) {
  constexpr std::int64_t kLanes = 8;
  float sums[kLanes] = {}, maxima[kLanes];
  std::fill(maxima, maxima + kLanes, kLowest);
  std::int64_t w = 0;
  for (; w + kLanes <= n; w += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += row[w + lane];
      maxima[lane] = larger(row[w + lane], maxima[lane]);
    }
  }
  for (; w < n; ++w) {
    sums[w % kLanes] += row[w];
    maxima[w % kLanes] = larger(row[w], maxima[w % kLanes]);
  }
  for (std::int64_t lane = 1; lane < kLanes; ++lane) {
    sums[0] += sums[lane];
    maxima[0] = larger(maxima[lane], maxima[0]);
  }
  return {sums[0], maxima[0]};
}

void fill_plane(const View<float, 2>& plane, float value) {
  for (std::int64_t i = 0; i < plane.shape[0]; ++i) std::fill_n(plane.at(i), plane.shape[1], value);
}

/// Divides the sums by how many values each has.
void divide(const View<float, 2>& sums, std::int64_t n) {
  for (std::int64_t i = 0; i < sums.shape[0]; ++i) {
    for (std::int64_t w = 0; w < sums.shape[1]; ++w) sums.at(i)[w] /= static_cast<float>(n);
  }
}

/// Projects one channel; the planes hold sums until all rows are read.
void project_channel(const View<const float, 3>& volume, const Plane& z, const Plane& y, const Plane& x) {
  const auto [n_d, n_h, n_w] = volume.shape;
  for (const Plane& plane : {z, y}) {
    fill_plane(plane.sum, 0.0F);
    fill_plane(plane.max, kLowest);
  }
  for (std::int64_t d = 0; d < n_d; ++d) {
    for (std::int64_t h = 0; h < n_h; ++h) {
      const float* row = volume.at(d, h);
      add_row(row, n_w, y.sum.at(d), y.max.at(d), z.sum.at(h), z.max.at(h));
      const auto [sum, max] = reduce_row(row, n_w);
      x.sum.at(d)[h] = sum;
      x.max.at(d)[h] = max;
    }
  }
  divide(z.sum, n_d);
  divide(y.sum, n_h);
  divide(x.sum, n_w);
}

/// out = (z + y + x) / 3, or added to it; the rows do not overlap.
template <bool kAdd>
void lift_row(const float* __restrict z, const float* __restrict y, float x, std::int64_t n, float* __restrict out) {
  constexpr float kThird = 1.0F / 3.0F;
  for (std::int64_t w = 0; w < n; ++w) {
    const float lifted = (z[w] + y[w] + x) * kThird;
    out[w] = kAdd ? out[w] + lifted : lifted;
  }
}

/// Writes or adds slice d of one channel.
void lift_slice(const SemanticLiftArgs& args, std::int64_t b, std::int64_t c, std::int64_t d) {
  const std::int64_t n_h = args.tensor.shape[3], n_w = args.tensor.shape[4];
  const auto z = args.z.as<float>();
  const auto out = args.tensor.as<float>();
  const float *y = args.y.as<float>().at(b, c, d), *x = args.x.as<float>().at(b, c, d);
  const auto lift = args.add ? lift_row<true> : lift_row<false>;
  for (std::int64_t h = 0; h < n_h; ++h) lift(z.at(b, c, h), y, x[h], n_w, out.at(b, c, d, h));
}

}  // namespace

void semantic_project_cpu(const SemanticProjectArgs& args, int n_threads) {
  const std::int64_t n_r = args.tensor.shape[1];
  parallel_for(args.tensor.shape[0] * n_r, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / n_r, r = i % n_r;
      const auto plane = [&](const AnyView<4, void>& planes) {
        const View<float, 3> channels = planes.as<float>().slice(b);
        return Plane{channels.slice(r), channels.slice(n_r + r)};
      };
      project_channel(args.tensor.as<float>().slice(b).slice(r), plane(args.z), plane(args.y), plane(args.x));
    }
  });
}

void semantic_lift_cpu(const SemanticLiftArgs& args, int n_threads) {
  const std::int64_t n_c = args.tensor.shape[1], n_d = args.tensor.shape[2];
  parallel_for(args.tensor.shape[0] * n_c * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) lift_slice(args, i / (n_c * n_d), i / n_d % n_c, i % n_d);
  });
}

}  // namespace fastbts
