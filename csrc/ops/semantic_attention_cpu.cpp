#include <vector>

#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/taps.h"
#include "ops/semantic_attention.h"

namespace fastbts {
namespace {

constexpr float kSlope = 0.01F;  // of leaky_relu, as everywhere in the network

/// [w_x | w_g | w_s] as one matrix (J, C + G + K), padded with zeros to a multiple of four columns.
struct Mix {
  explicit Mix(const SemanticAttentionArgs& args)
      : n_rows(args.w_a.shape[0]),
        n_columns((args.w_x.shape[1] + args.w_g.shape[1] + args.w_s.shape[1] + 3) / 4 * 4),
        values(static_cast<std::size_t>(n_rows * n_columns)) {
    for (std::int64_t j = 0; j < n_rows; ++j) {
      float* out = values.data() + j * n_columns;
      for (const auto& part : {args.w_x, args.w_g, args.w_s}) out = std::copy_n(part.at(j), part.shape[1], out);
    }
  }
  const float* at(std::int64_t j, std::int64_t column) const { return values.data() + j * n_columns + column; }

  std::int64_t n_rows, n_columns;
  std::vector<float> values;
};

struct AllTaps {
  Taps d, h, w;
};

/// What one thread works in: rows of one row of voxels.
struct Scratch {
  Scratch(const SemanticAttentionArgs& args, const Mix& mix)
      : n_w(args.skip.shape[4]),
        inputs(static_cast<std::size_t>(mix.n_columns)),
        zeros(static_cast<std::size_t>(n_w)),
        maps(static_cast<std::size_t>(args.similarity.shape[1] * n_w)),
        coarse(static_cast<std::size_t>(2 * args.similarity.shape[4])),
        hidden(static_cast<std::size_t>(n_w)),
        factor(static_cast<std::size_t>(n_w)) {}

  std::int64_t n_w;
  std::vector<const float*> inputs;  // rows of skip, gate and upsampled similarity; zeros as padding
  std::vector<float> zeros, maps, coarse, hidden, factor;
};

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

/// Collects the input rows of row (d, h) of case b.
void collect_rows(const SemanticAttentionArgs& args, const AllTaps& taps, std::int64_t b, std::int64_t d,
                  std::int64_t h, Scratch& scratch) {
  auto next = scratch.inputs.begin();
  for (std::int64_t c = 0; c < args.skip.shape[1]; ++c) *next++ = args.skip.at(b, c, d, h);
  for (std::int64_t g = 0; g < args.gate.shape[1]; ++g) *next++ = args.gate.at(b, g, d, h);
  for (std::int64_t k = 0; k < args.similarity.shape[1]; ++k) {
    float* out = scratch.maps.data() + k * scratch.n_w;
    upsample_row(args.similarity.slice(b).slice(k), taps, d, h, scratch.coarse, out);
    *next++ = out;
  }
  std::fill(next, scratch.inputs.end(), scratch.zeros.data());
}

/// Adds four weighted rows to one; four, so that it is loaded and stored less often.
void mix_rows(const float* const* rows, const float* weights, std::int64_t n, float* __restrict out) {
  const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
  const float wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3];
  for (std::int64_t w = 0; w < n; ++w) out[w] += (wa * a[w] + wb * b[w]) + (wc * c[w] + wd * d[w]);
}

/// Adds weight * leaky_relu(hidden).
void add_activated(const float* hidden, float weight, std::int64_t n, float* __restrict out) {
  for (std::int64_t w = 0; w < n; ++w) out[w] += weight * (hidden[w] > 0 ? hidden[w] : kSlope * hidden[w]);
}

/// Turns logits z into 1 + scale (2 sigmoid(z) - 1).
void to_factor(float* z, float scale, std::int64_t n) {
  for (std::int64_t w = 0; w < n; ++w) z[w] = 1 + scale * (2 / (1 + fast_exp(-z[w])) - 1);
}

void attend_row(const SemanticAttentionArgs& args, const Mix& mix, std::int64_t b, std::int64_t d, std::int64_t h,
                Scratch& scratch) {
  const std::int64_t n = scratch.n_w;
  float *hidden = scratch.hidden.data(), *factor = scratch.factor.data();
  std::fill_n(factor, n, 0.0F);
  for (std::int64_t j = 0; j < mix.n_rows; ++j) {
    std::fill_n(hidden, n, *args.bias.at(j));
    for (std::int64_t i = 0; i < mix.n_columns; i += 4)
      mix_rows(&scratch.inputs[static_cast<std::size_t>(i)], mix.at(j, i), n, hidden);
    add_activated(hidden, *args.w_a.at(j), n, factor);
  }
  to_factor(factor, args.scale, n);
  for (std::int64_t c = 0; c < args.skip.shape[1]; ++c) {
    const float* skip = args.skip.at(b, c, d, h);
    float* out = args.out.at(b, c, d, h);
    for (std::int64_t w = 0; w < n; ++w) out[w] = skip[w] * factor[w];
  }
}

}  // namespace

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads) {
  const Shape<5>&shape = args.skip.shape, maps = args.similarity.shape;
  const AllTaps taps{{maps[2], shape[2]}, {maps[3], shape[3]}, {maps[4], shape[4]}};
  const Mix mix(args);
  parallel_for(shape[0] * shape[2] * shape[3], n_threads, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch(args, mix);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / (shape[2] * shape[3]), d = i / shape[3] % shape[2], h = i % shape[3];
      collect_rows(args, taps, b, d, h, scratch);
      attend_row(args, mix, b, d, h, scratch);
    }
  });
}

}  // namespace fastbts
