#include <algorithm>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/memory.h"
#include "core/cpu/panel.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd_math.h"
#include "core/cpu/taps.h"
#include "core/cpu/wide.h"
#include "ops/semantic_attention.h"

namespace fastbts {
namespace {

constexpr std::int64_t kTileRows =
    8;  // rows at half resolution: their 32 rows of factors stay in the first-level cache
constexpr std::int64_t kChildren = 8;  // voxels of the skip in one at half resolution

/// The weights as two products: inputs -> hidden channels -> logits of the children.
struct Mix {
  explicit Mix(const SemanticAttentionArgs& args)
      : hidden(args.w_a.shape[0], args.w_x.shape[1] + args.w_g.shape[1] + args.w_s.shape[1]),
        children(kChildren, args.w_a.shape[0]),
        bias(static_cast<std::size_t>(hidden.n_rows())) {
    for (std::int64_t j = 0; j < args.w_a.shape[0]; ++j) {
      bias[static_cast<std::size_t>(j)] = *args.bias.at(j);
      std::int64_t column = 0;
      for (const auto& part : {args.w_x, args.w_g, args.w_s}) {
        hidden.set(j, column, part.at(j), part.shape[1]);
        column += part.shape[1];
      }
      for (std::int64_t i = 0; i < kChildren; ++i)
        children.set(i, j, args.w_a.at(j, i / 4, i / 2 % 2) + i % 2, 1);
    }
  }

  PanelMatrix hidden, children;
  std::vector<float> bias;
};

struct AllTaps {
  Taps d, h, w;
};

/// What one thread works in, for a tile of rows side by side; room for a whole last panel.
struct Scratch {
  Scratch(const SemanticAttentionArgs& args, const Mix& mix)
      : n_w(args.encoded.shape[4]),
        n(kTileRows * n_w + kLanes),
        maps(static_cast<std::size_t>(args.similarity.shape[1] * n)),
        coarse(static_cast<std::size_t>(2 * args.similarity.shape[4])),
        last(static_cast<std::size_t>(mix.hidden.n_columns() * kLanes)),
        hidden(static_cast<std::size_t>(mix.hidden.n_rows() * n)),
        children(static_cast<std::size_t>(kChildren * n)),
        factors(static_cast<std::size_t>(kChildren * kTileRows * n_w)),
        columns(static_cast<std::size_t>(mix.hidden.n_columns())),
        last_columns(columns_of(last.data(), mix.hidden.n_columns(), kLanes)),
        hidden_columns(columns_of(hidden.data(), mix.children.n_columns(), n)) {}

  std::int64_t n_w, n;
  std::vector<float> maps, coarse, last, hidden, children;
  std::vector<float> factors;  // (2, 2 kTileRows, 2 n_w)
  std::vector<const float*> columns, last_columns, hidden_columns;
};

/// Upsamples one row of one similarity map.
void upsample_row(const View<const float, 3>& map, const AllTaps& taps, std::int64_t d,
                  std::int64_t h, std::vector<float>& coarse, float* out) {
  const std::int64_t n = map.shape[2];
  const auto i = static_cast<std::size_t>(d), j = static_cast<std::size_t>(h);
  float *low = coarse.data(), *high = low + n;
  lerp_rows(map.at(taps.d.low[i], taps.h.low[j]), map.at(taps.d.high[i], taps.h.low[j]),
            taps.d.part[i], n, low);
  lerp_rows(map.at(taps.d.low[i], taps.h.high[j]), map.at(taps.d.high[i], taps.h.high[j]),
            taps.d.part[i], n, high);
  lerp_rows(low, high, taps.h.part[j], n, low);
  lerp_along(low, taps.w, out);
}

/// Upsamples the similarity maps of a case for rows of slice d.
void upsample(const View<const float, 4>& maps, const AllTaps& taps, std::int64_t d,
              const Bounds& rows, Scratch& scratch) {
  for (std::int64_t k = 0; k < maps.shape[0]; ++k) {
    float* out = scratch.maps.data() + k * scratch.n;
    for (std::int64_t h = rows.begin; h < rows.end; ++h, out += scratch.n_w)
      upsample_row(maps.slice(k), taps, d, h, scratch.coarse, out);
  }
}

/// Values of n_rows rows that lie in one run of memory: all, or those of a row.
std::int64_t run_of(const View<const float, 5>& features, std::int64_t n_rows) {
  const std::int64_t n = features.shape[4];
  return features.strides[3] == n ? n_rows * n : n;
}

/// Points the columns at the inputs from row h of slice d of case b on, before which the tile has
/// n_before voxels.
void point(const SemanticAttentionArgs& args, std::int64_t b, std::int64_t d, std::int64_t h,
           std::int64_t n_before, Scratch& scratch) {
  auto column = scratch.columns.begin();
  for (const auto& features : {args.encoded.as<float>(), args.decoded.as<float>()})
    for (std::int64_t c = 0; c < features.shape[1]; ++c) *column++ = features.at(b, c, d, h);
  for (std::int64_t k = 0; k < args.similarity.shape[1]; ++k)
    *column++ = scratch.maps.data() + k * scratch.n + n_before;
}

/// Computes the children's logits of n voxels whose channels begin at the columns.
void mix_run(const Mix& mix, const std::vector<const float*>& columns, std::int64_t n,
             Scratch& scratch, float* out) {
  constexpr float kNoBias[kChildren] = {};
  float* hidden = scratch.hidden.data();
  mix.hidden.multiply(columns.data(), n, mix.bias.data(), hidden, scratch.n);
  for (std::int64_t j = 0; j < mix.hidden.n_rows(); ++j)
    wide([=, row = hidden + j * scratch.n] { std::transform(row, row + n, row, leaky_relu); });
  mix.children.multiply(scratch.hidden_columns.data(), n, kNoBias, out, scratch.n);
}

/// As mix_run; but as whole panels would reach beyond the features' last voxel, the last one is
/// copied.
void mix_features(const Mix& mix, std::int64_t n, Scratch& scratch, float* out) {
  const std::int64_t n_whole = n / kLanes * kLanes;
  mix_run(mix, scratch.columns, n_whole, scratch, out);
  if (n_whole == n) return;
  for (std::size_t c = 0; c < scratch.columns.size(); ++c)
    std::copy_n(scratch.columns[c] + n_whole, n - n_whole, scratch.last.data() + c * kLanes);
  mix_run(mix, scratch.last_columns, n - n_whole, scratch, out + n_whole);
}

void interleave(const float* even, const float* odd, std::int64_t n, float* __restrict out) {
  for (std::int64_t w = 0; w < n; ++w) {
    out[2 * w] = even[w];
    out[2 * w + 1] = odd[w];
  }
}

/// Turns logits into 1 + strength (2 sigmoid(z) - 1).
void to_factors(float* z, float strength, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) z[i] = 1 + strength * (2 / (1 + fast_exp(-z[i])) - 1);
}

/// Computes the factors of rows of slice d of case b, and lays them out as the skip's voxels.
void attend(const SemanticAttentionArgs& args, const Mix& mix, std::int64_t b, std::int64_t d,
            const Bounds& rows, Scratch& scratch) {
  const std::int64_t n_w = scratch.n_w, n_rows = rows.size();
  const std::int64_t n =
      std::min(run_of(args.encoded.as<float>(), n_rows), run_of(args.decoded.as<float>(), n_rows));
  float* children = scratch.children.data();
  for (std::int64_t i = 0; i < n_rows * n_w; i += n) {
    point(args, b, d, rows.begin + i / n_w, i, scratch);
    mix_features(mix, n, scratch, children + i);
  }
  wide([=, strength = args.strength, n = kChildren * scratch.n] {
    to_factors(children, strength, n);
  });
  for (std::int64_t pair = 0; pair < kChildren / 2; ++pair) {
    for (std::int64_t h = 0; h < n_rows; ++h) {
      const float* even = children + 2 * pair * scratch.n + h * n_w;
      float* out = scratch.factors.data() + 2 * n_w * (pair / 2 * 2 * kTileRows + 2 * h + pair % 2);
      wide([=, odd = even + scratch.n] { interleave(even, odd, n_w, out); });
    }
  }
}

/// Multiplies rows [begin, end) of slice d by their factors, channel after channel: long steps
/// through memory, which its own prefetching does not follow.
void weigh(const SemanticAttentionArgs& args, std::int64_t b, std::int64_t d, const Bounds& rows,
           const float* factors) {
  constexpr std::int64_t kAhead = 2;  // channels
  constexpr std::int64_t kLine = 16;
  const std::int64_t n_c = args.skip.shape[1], n_w = args.skip.shape[4];
  const bool streamed = is_streamed(n_elements(args.out.shape));
  const auto skips = args.skip.as<float>();
  const auto outs = args.out.as<float>();
  const std::int64_t n = outs.strides[3] == n_w ? run_of(skips, rows.size()) : n_w;
  for (std::int64_t c = 0; c < n_c; ++c) {
    for (std::int64_t i = 0; i < rows.size() * n_w; i += n) {
      const std::int64_t h = rows.begin + i / n_w;
      const float* ahead = skips.at(b, std::min(c + kAhead, n_c - 1), d, h);
      for (std::int64_t w = 0; w < n; w += kLine) prefetch(ahead + w);
      multiply_values(skips.at(b, c, d, h), factors + i, n, outs.at(b, c, d, h), streamed);
    }
  }
}

}  // namespace

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads) {
  const Shape<5>&shape = args.encoded.shape, maps = args.similarity.shape;
  const AllTaps taps{{maps[2], shape[2]}, {maps[3], shape[3]}, {maps[4], shape[4]}};
  const Mix mix(args);
  const std::int64_t n_tiles = (shape[3] + kTileRows - 1) / kTileRows;
  parallel_for(shape[0] * shape[2] * n_tiles, n_threads, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch(args, mix);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / (shape[2] * n_tiles), d = i / n_tiles % shape[2],
                         first = i % n_tiles * kTileRows;
      const Bounds rows{first, std::min(first + kTileRows, shape[3])};
      upsample(args.similarity.as<float>().slice(b), taps, d, rows, scratch);
      attend(args, mix, b, d, rows, scratch);
      for (const std::int64_t half : {0, 1}) {
        const float* factors = scratch.factors.data() + half * 4 * kTileRows * scratch.n_w;
        weigh(args, b, 2 * d + half, {2 * rows.begin, 2 * rows.end}, factors);
      }
    }
    stream_fence();
  });
}

}  // namespace fastbts
