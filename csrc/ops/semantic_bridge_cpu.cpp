#include <algorithm>
#include <array>
#include <limits>

#include "core/cpu/four.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/semantic_bridge.h"

namespace fastbts {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// Sums, in the end means, and maxima of one channel.
struct Plane {
  View<float, 2> sum, max;
};

template <typename T>
T larger(T a, T b) {
  return a > b ? a : b;
}

/// Adds n values to running sums and maxima; none of the three overlap.
void accumulate(const float* __restrict values, std::int64_t n, float* __restrict sum,
                float* __restrict max) {
  for (std::int64_t i = 0; i < n; ++i) {
    sum[i] += values[i];
    max[i] = larger(values[i], max[i]);
  }
}

/// Running sums and maxima, kFour side by side.
struct Columns {
  Four sum = Four{}, max = Four{} + kLowest;

  void add(Four values) { add(values, values); }
  void add(Four to_sum, Four to_max) {
    sum += to_sum;
    max = larger(to_max, max);
  }
};

/// Sums and maxima of each column of a slice.
void reduce_columns(const View<const float, 2>& slice, float* sum, float* max) {
  const auto [n_h, n_w] = slice.shape;
  std::fill_n(sum, n_w, 0.0F);
  std::fill_n(max, n_w, kLowest);
  if (n_w < kFour) {
    for (std::int64_t h = 0; h < n_h; ++h) accumulate(slice.at(h), n_w, sum, max);
    return;
  }
  for (std::int64_t begin = 0; begin < n_w; begin += kFour) {
    const std::int64_t first =
        std::min(begin, n_w - kFour);  // some of the last four may have been there before
    Columns columns;
    for (std::int64_t h = 0; h < n_h; ++h) columns.add(load(slice.at(h) + first));
    store(columns.sum, sum + first);
    store(columns.max, max + first);
  }
}

/// Sum and maximum of a row, in four columns that are combined at the end: fixed bits, and SIMD.
std::array<float, 2> reduce_row(const float* row, std::int64_t n) {
  Columns columns;
  std::int64_t w = 0;
  for (; w + kFour <= n; w += kFour) columns.add(load(row + w));
  const auto [sums, maxima] = columns;
  const Four pairs = larger(maxima, Four{maxima[2], maxima[3], maxima[0], maxima[1]});
  float sum = (sums[0] + sums[2]) + (sums[1] + sums[3]),
        max = larger(pairs, Four{pairs[1], pairs[0]})[0];
  for (; w < n; ++w) {
    sum += row[w];
    max = larger(row[w], max);
  }
  return {sum, max};
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

/// Projects one channel; the plane of z holds sums until all slices are read.
void project_channel(const View<const float, 3>& volume, const Plane& z, const Plane& y,
                     const Plane& x) {
  const auto [n_d, n_h, n_w] = volume.shape;
  const bool dense =
      volume.strides[1] == n_w && z.sum.strides[0] == n_w;  // a slice is one long row
  const std::int64_t n_rows = dense ? 1 : n_h;
  fill_plane(z.sum, 0.0F);
  fill_plane(z.max, kLowest);
  for (std::int64_t d = 0; d < n_d; ++d) {
    const View<const float, 2> slice = volume.slice(d);
    reduce_columns(slice, y.sum.at(d), y.max.at(d));
    for (std::int64_t h = 0; h < n_rows; ++h)
      accumulate(slice.at(h), n_h * n_w / n_rows, z.sum.at(h), z.max.at(h));
    for (std::int64_t h = 0; h < n_h; ++h) {
      const auto [sum, max] = reduce_row(slice.at(h), n_w);
      x.sum.at(d)[h] = sum;
      x.max.at(d)[h] = max;
    }
  }
  divide(z.sum, n_d);
  divide(y.sum, n_h);
  divide(x.sum, n_w);
}

/// (z + y + x) / 3, added to out or in its place; of one number or of kFour.
template <bool kAdd, typename T>
T lifted(T z, T y, float x, T out) {
  constexpr float kThird = 1.0F / 3.0F;
  const T mean = (z + y + x) * kThird;
  return kAdd ? out + mean : mean;
}

/// Lifts a row; none of the three overlap. The last four are computed before what they share with
/// others is written.
template <bool kAdd>
void lift_row(const float* __restrict z, const float* __restrict y, float x, std::int64_t n,
              float* __restrict out) {
  if (n < kFour) {
    for (std::int64_t w = 0; w < n; ++w) out[w] = lifted<kAdd>(z[w], y[w], x, out[w]);
    return;
  }
  const auto four = [=](std::int64_t w) {
    return lifted<kAdd>(load(z + w), load(y + w), x, load(out + w));
  };
  const Four last = four(n - kFour);
  for (std::int64_t w = 0; w < n - kFour; w += kFour) store(four(w), out + w);
  store(last, out + n - kFour);
}

/// Writes or adds slice d of one channel.
template <bool kAdd>
void lift_slice(const SemanticLiftArgs& args, std::int64_t b, std::int64_t c, std::int64_t d) {
  const std::int64_t n_h = args.tensor.shape[3], n_w = args.tensor.shape[4];
  const auto z = args.z.as<float>();
  const auto out = args.tensor.as<float>();
  const float *y = args.y.as<float>().at(b, c, d), *x = args.x.as<float>().at(b, c, d);
  for (std::int64_t h = 0; h < n_h; ++h)
    lift_row<kAdd>(z.at(b, c, h), y, x[h], n_w, out.at(b, c, d, h));
}

}  // namespace

void semantic_project_cpu(const SemanticProjectArgs& args, int n_threads) {
  constexpr std::int64_t kVoxels = 1 << 18;  // what a thread takes about 0.15 ms for
  const auto [n_b, n_r, n_d, n_h, n_w] = args.tensor.shape;
  const auto project = [&, n_r = n_r](std::int64_t i) {
    const std::int64_t b = i / n_r, r = i % n_r;
    const auto plane = [&](const AnyView<4, void>& planes) {
      const View<float, 3> channels = planes.as<float>().slice(b);
      return Plane{channels.slice(r), channels.slice(n_r + r)};
    };
    project_channel(args.tensor.as<float>().slice(b).slice(r), plane(args.z), plane(args.y),
                    plane(args.x));
  };
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    wide([&] {
      for (std::int64_t i = begin; i < end; ++i) project(i);
    });
  };
  parallel_for(n_b * n_r, n_threads, work, 1 + kVoxels / (1 + n_d * n_h * n_w));
}

void semantic_lift_cpu(const SemanticLiftArgs& args, int n_threads) {
  constexpr std::int64_t kVoxels = 1 << 19;  // what a thread takes about 0.1 ms for
  const auto [n_b, n_c, n_d, n_h, n_w] = args.tensor.shape;
  const auto lift = args.add ? lift_slice<true> : lift_slice<false>;
  const auto work = [&, n_c = n_c, n_d = n_d](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) lift(args, i / (n_c * n_d), i / n_d % n_c, i % n_d);
  };
  parallel_for(n_b * n_c * n_d, n_threads, work, 1 + kVoxels / (1 + n_h * n_w));
}

}  // namespace fastbts
