#include <vector>

#include "core/panel.h"
#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/taps.h"
#include "ops/semantic_attention.h"

namespace fastbts {
namespace {

constexpr float kSlope = 0.01F;  // of leaky_relu, as everywhere in the network
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
        for (std::int64_t i = 0; i < part.shape[1]; ++i) hidden.at(j, column++) = part.at(j)[i];
      }
      for (std::int64_t i = 0; i < kChildren; ++i) children.at(i, j) = args.w_a.at(j, i / 4, i / 2 % 2)[i % 2];
    }
  }

  PanelMatrix hidden, children;
  std::vector<float> bias;
};

struct AllTaps {
  Taps d, h, w;
};

/// What one thread works in.
struct Scratch {
  Scratch(const SemanticAttentionArgs& args, const Mix& mix)
      : n_w(args.encoded.shape[4]),
        n_channels(mix.hidden.n_columns()),
        n_in_row((n_w + kLanes - 1) / kLanes * kLanes * n_channels),
        panels(static_cast<std::size_t>(kTileRows * n_in_row)),
        maps(static_cast<std::size_t>(n_w)),
        coarse(static_cast<std::size_t>(2 * args.similarity.shape[4])),
        hidden(static_cast<std::size_t>(mix.hidden.n_rows() * kLanes)),
        factors(static_cast<std::size_t>(kChildren * kTileRows * n_w)) {}

  float* panels_of(std::int64_t row) { return panels.data() + row * n_in_row; }

  std::int64_t n_w, n_channels, n_in_row;
  std::vector<float> panels;  // inputs of each row of a tile, kLanes voxels after kLanes voxels
  std::vector<float> maps, coarse, hidden;
  std::vector<float> factors;  // (2, 2 kTileRows, 2 n_w)
};

/// Copies a row of one channel into the panels of its voxels.
void spread(const float* row, std::int64_t n, std::int64_t channel, std::int64_t n_channels, float* panels) {
  float* out = panels + channel * kLanes;
  std::int64_t w = 0;
  for (; w + kLanes <= n; w += kLanes, out += n_channels * kLanes) std::copy_n(row + w, kLanes, out);
  std::copy_n(row + w, n - w, out);
}

/// Upsamples one row of one similarity map.
void upsample_row(const View<const float, 3>& map, const AllTaps& taps, std::int64_t d, std::int64_t h,
                  std::vector<float>& coarse, float* out) {
  const std::int64_t n = map.shape[2];
  const auto i = static_cast<std::size_t>(d), j = static_cast<std::size_t>(h);
  float *low = coarse.data(), *high = low + n;
  lerp_rows(map.at(taps.d.low[i], taps.h.low[j]), map.at(taps.d.high[i], taps.h.low[j]), taps.d.part[i], n, low);
  lerp_rows(map.at(taps.d.low[i], taps.h.high[j]), map.at(taps.d.high[i], taps.h.high[j]), taps.d.part[i], n, high);
  lerp_rows(low, high, taps.h.part[j], n, low);
  lerp_along(low, taps.w, out);
}

/// Collects the inputs of rows of slice d of case b, channel after channel: long steps through memory.
void collect(const SemanticAttentionArgs& args, const AllTaps& taps, std::int64_t b, std::int64_t d, const Bounds& rows,
             Scratch& scratch) {
  const std::int64_t n_w = scratch.n_w, n_channels = scratch.n_channels;
  std::int64_t channel = 0;
  for (const auto& features : {args.encoded.as<float>(), args.decoded.as<float>()}) {
    for (std::int64_t c = 0; c < features.shape[1]; ++c, ++channel) {
      for (std::int64_t h = rows.begin; h < rows.end; ++h)
        spread(features.at(b, c, d, h), n_w, channel, n_channels, scratch.panels_of(h - rows.begin));
    }
  }
  const View<const float, 4> maps = args.similarity.as<float>().slice(b);
  for (std::int64_t k = 0; k < maps.shape[0]; ++k, ++channel) {
    for (std::int64_t h = rows.begin; h < rows.end; ++h) {
      upsample_row(maps.slice(k), taps, d, h, scratch.coarse, scratch.maps.data());
      spread(scratch.maps.data(), n_w, channel, n_channels, scratch.panels_of(h - rows.begin));
    }
  }
}

/// Turns logits into 1 + strength (2 sigmoid(z) - 1).
void to_factors(float* z, float strength, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) z[i] = 1 + strength * (2 / (1 + fast_exp(-z[i])) - 1);
}

/// Computes the factors of one row of a tile from its panels, into the rows of its children.
void attend(const Mix& mix, float strength, std::int64_t row_of_tile, Scratch& scratch) {
  constexpr float kNoBias[kChildren] = {};
  const float* panels = scratch.panels_of(row_of_tile);
  float *hidden = scratch.hidden.data(), *out = scratch.factors.data() + 4 * row_of_tile * scratch.n_w;
  for (std::int64_t begin = 0; begin < scratch.n_w; begin += kLanes) {
    mix.hidden.multiply(panels + begin * scratch.n_channels, mix.bias.data(), hidden);
    for (float& value : scratch.hidden) value = value > 0 ? value : kSlope * value;
    float children[kChildren * kLanes];
    mix.children.multiply(hidden, kNoBias, children);
    to_factors(children, strength, kChildren * kLanes);
    const std::int64_t n = std::min(kLanes, scratch.n_w - begin);
    for (std::int64_t child = 0; child < kChildren; ++child) {
      const std::int64_t row = child / 4 * 2 * kTileRows + child / 2 % 2;
      float* target = out + 2 * (row * scratch.n_w + begin) + child % 2;
      for (std::int64_t lane = 0; lane < n; ++lane) target[2 * lane] = children[child * kLanes + lane];
    }
  }
}

/// Multiplies rows [begin, end) of slice d by their factors, channel after channel: long steps through memory.
void weigh(const SemanticAttentionArgs& args, std::int64_t b, std::int64_t d, const Bounds& rows,
           const float* factors) {
  const std::int64_t n = args.skip.shape[4];
  const auto skips = args.skip.as<float>();
  const auto outs = args.out.as<float>();
  for (std::int64_t c = 0; c < args.skip.shape[1]; ++c) {
    for (std::int64_t h = rows.begin; h < rows.end; ++h) {
      const float *skip = skips.at(b, c, d, h), *factor = factors + (h - rows.begin) * n;
      float* out = outs.at(b, c, d, h);
      for (std::int64_t w = 0; w < n; ++w) out[w] = skip[w] * factor[w];
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
      const std::int64_t b = i / (shape[2] * n_tiles), d = i / n_tiles % shape[2], first = i % n_tiles * kTileRows;
      const Bounds rows{first, std::min(first + kTileRows, shape[3])};
      collect(args, taps, b, d, rows, scratch);
      for (std::int64_t row = 0; row < rows.size(); ++row) attend(mix, args.strength, row, scratch);
      for (const std::int64_t half : {0, 1}) {
        const float* factors = scratch.factors.data() + half * 4 * kTileRows * scratch.n_w;
        weigh(args, b, 2 * d + half, {2 * rows.begin, 2 * rows.end}, factors);
      }
    }
  });
}

}  // namespace fastbts
