#include <algorithm>
#include <vector>

#include "core/cpu/panel.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd_math.h"
#include "core/cpu/wide.h"
#include "ops/semantic_bridge.h"

namespace fastbts {
namespace {

constexpr std::int64_t kKernel = 3;  // the convolution is kKernel x kKernel

constexpr std::int64_t kChunkRows =
    4;  // rows seen together: what they need stays in the second-level cache

/// The convolution as a matrix (R, 2R 3 3), the expansion (C, R), and the bias of each view.
struct Weights {
  explicit Weights(const SemanticPlaneArgs& args)
      : conv(args.conv.shape[0], args.conv.shape[1] * kKernel * kKernel),
        expand(args.expand.shape[0], args.expand.shape[1]),
        bias(3, std::vector<float>(static_cast<std::size_t>(conv.n_rows()))),
        no_bias(static_cast<std::size_t>(expand.n_rows())) {
    for (std::int64_t r = 0; r < args.conv.shape[0]; ++r) {
      for (std::int64_t c = 0; c < args.conv.shape[1]; ++c)
        for (std::int64_t h = 0; h < kKernel; ++h)
          conv.set(r, (c * kKernel + h) * kKernel, args.conv.at(r, c, h), kKernel);
      for (std::size_t view = 0; view < 3; ++view)
        bias[view][static_cast<std::size_t>(r)] = *args.bias.at(r) + args.view.at(view)[r];
    }
    for (std::int64_t c = 0; c < args.expand.shape[0]; ++c)
      expand.set(c, 0, args.expand.at(c), args.expand.shape[1]);
  }

  PanelMatrix conv, expand;
  std::vector<std::vector<float>> bias;
  std::vector<float> no_bias;
};

/// What one thread works in. Each row of an image has a zero on either side here, and rows follow
/// each other: what the convolution sees of a run of pixels is a run, too. Each array has room for
/// a whole last panel.
struct Scratch {
  Scratch(const Weights& weights, std::int64_t most_columns)
      : n((kChunkRows + 2) * (most_columns + 2) + 2 * kLanes),
        padded(static_cast<std::size_t>(weights.conv.n_columns() / (kKernel * kKernel) * n)),
        hidden(static_cast<std::size_t>(weights.conv.n_rows() * n)),
        seen(static_cast<std::size_t>(weights.expand.n_rows() * n)),
        conv_columns(static_cast<std::size_t>(weights.conv.n_columns())),
        expand_columns(columns_of(hidden.data(), weights.expand.n_columns(), n)) {}

  /// For images of another size.
  void resize(std::int64_t n_columns) {
    width = n_columns + 2;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(conv_columns.size()); ++i)
      conv_columns[i] =
          padded.data() + i / (kKernel * kKernel) * n + i / kKernel % kKernel * width + i % kKernel;
  }

  std::int64_t n, width = 0;
  std::vector<float> padded, hidden,
      seen;  // (2R, kChunkRows + 2, width), (R, kChunkRows, width), (C, likewise)
  std::vector<const float*> conv_columns, expand_columns;
};

/// Copies rows [begin - 1, end + 1) of an image, zeros around it.
void pad(const View<const float, 3>& image, const Bounds& rows, Scratch& scratch) {
  const std::int64_t n_w = image.shape[2];
  for (std::int64_t c = 0; c < image.shape[0]; ++c) {
    float* out = scratch.padded.data() + c * scratch.n;
    for (std::int64_t h = rows.begin - 1; h <= rows.end; ++h, out += scratch.width) {
      const bool inside = Bounds{0, image.shape[1]}.contains(h);
      if (inside) std::copy_n(image.at(c, h), n_w, out + 1);
      std::fill_n(out, inside ? 1 : n_w + 1, 0.0F);
      out[n_w + 1] = 0;
    }
  }
}

/// Computes rows of one case of one view.
void see_rows(const View<const float, 3>& image, const Weights& weights,
              const std::vector<float>& bias, const Bounds& rows, Scratch& scratch,
              const View<float, 3>& out) {
  pad(image, rows, scratch);
  const std::int64_t n = scratch.n, n_pixels = rows.size() * scratch.width;
  float *hidden = scratch.hidden.data(), *seen = scratch.seen.data();
  weights.conv.multiply(scratch.conv_columns.data(), n_pixels, bias.data(), hidden, n);
  wide([=, size = scratch.hidden.size()] {
    std::transform(hidden, hidden + size, hidden, leaky_relu);
  });
  weights.expand.multiply(scratch.expand_columns.data(), n_pixels, weights.no_bias.data(), seen, n);
  for (std::int64_t c = 0; c < out.shape[0]; ++c) {
    for (std::int64_t h = 0; h < rows.size(); ++h)
      std::copy_n(seen + c * n + h * scratch.width, image.shape[2], out.at(c, rows.begin + h));
  }
}

/// Computes rows [begin, end) of one view, of which each case has some.
void see_view(const View<const float, 4>& images, const Weights& weights,
              const std::vector<float>& bias, std::int64_t begin, std::int64_t end,
              Scratch& scratch, const View<float, 4>& out) {
  const std::int64_t n_h = images.shape[2];
  scratch.resize(images.shape[3]);
  for (std::int64_t row = begin; row < end;) {
    const std::int64_t b = row / n_h, h = row % n_h, n = std::min({kChunkRows, n_h - h, end - row});
    see_rows(images.slice(b), weights, bias, {h, h + n}, scratch, out.slice(b));
    row += n;
  }
}

}  // namespace

void semantic_plane_cpu(const SemanticPlaneArgs& args, int n_threads) {
  constexpr std::int64_t kProducts =
      20'000'000;  // what a thread takes about 0.3 ms for: less is not worth its start
  const Weights weights(args);
  const auto& [z, y, x] = args.planes;
  const std::int64_t most_columns = std::max({z.shape[3], y.shape[3], x.shape[3]});
  const std::int64_t n_products =
      weights.conv.n_columns() * weights.conv.n_rows() * most_columns;  // of a row
  const auto n_rows = [&](std::size_t view) {
    return args.planes[view].shape[0] * args.planes[view].shape[2];
  };
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch(weights, most_columns);
    for (std::size_t view = 0; view < 3; ++view) {
      see_view(args.planes[view].as<float>(), weights, weights.bias[view],
               std::max<std::int64_t>(begin, 0), std::min(end, n_rows(view)), scratch,
               args.out[view].as<float>());
      begin -= n_rows(view);
      end -= n_rows(view);
    }
  };
  parallel_for(n_rows(0) + n_rows(1) + n_rows(2), n_threads, work,
               1 + kProducts / (1 + n_products));
}

}  // namespace fastbts
