#include <algorithm>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/resample.h"
#include "ops/semantic_attention.h"

// Plain loops, as a specification of the CUDA kernel. On a CPU OpenVINO runs the attention as its
// own operations: replacing them by vectorised loops did not make the network faster.
namespace fastbts {
namespace {

/// Adds the channels of row (d, h) of features (C, D, H, W) to hidden (J, W), by weights (J, C).
void mix(const View<const float, 4>& features, const View<const float, 2>& weights, std::int64_t d,
         std::int64_t h, std::vector<float>& hidden) {
  const std::int64_t n = features.shape[3];
  for (std::int64_t j = 0; j < weights.shape[0]; ++j) {
    for (std::int64_t c = 0; c < weights.shape[1]; ++c) {
      const float weight = *weights.at(j, c), *values = features.at(c, d, h);
      for (std::int64_t w = 0; w < n; ++w) hidden[j * n + w] += weight * values[w];
    }
  }
}

/// Hidden channels (J, W) of row (d, h) of case b.
std::vector<float> hidden_row(const SemanticAttentionArgs& args, const View<const float, 4>& maps,
                              std::int64_t b, std::int64_t d, std::int64_t h) {
  const std::int64_t n = args.encoded.shape[4];
  std::vector<float> hidden;
  for (std::int64_t j = 0; j < args.bias.shape[0]; ++j)
    hidden.insert(hidden.end(), static_cast<std::size_t>(n), *args.bias.at(j));
  mix(args.encoded.as<float>().slice(b), args.w_x, d, h, hidden);
  mix(args.decoded.as<float>().slice(b), args.w_g, d, h, hidden);
  mix(maps, args.w_s, d, h, hidden);
  std::transform(hidden.begin(), hidden.end(), hidden.begin(), leaky_relu);
  return hidden;
}

/// Weights the voxels of the skip inside row (d, h) that are child i of eight.
void weight_children(const SemanticAttentionArgs& args, const std::vector<float>& hidden,
                     std::int64_t b, std::int64_t d, std::int64_t h, std::int64_t i) {
  const auto skip = args.skip.as<float>();
  const auto out = args.out.as<float>();
  const std::int64_t n = args.encoded.shape[4], z = 2 * d + i / 4, y = 2 * h + i / 2 % 2;
  for (std::int64_t w = 0; w < n; ++w) {
    float logit = 0;
    for (std::int64_t j = 0; j < args.bias.shape[0]; ++j)
      logit += *args.w_a.at(j, i / 4, i / 2 % 2, i % 2) * hidden[j * n + w];
    const float factor = 1 + args.strength * (2 * sigmoid(logit) - 1);
    const std::int64_t x = 2 * w + i % 2;
    for (std::int64_t c = 0; c < skip.shape[1]; ++c)
      *out.at(b, c, z, y, x) = *skip.at(b, c, z, y, x) * factor;
  }
}

void weight_case(const SemanticAttentionArgs& args, std::int64_t b, int n_threads) {
  const auto [n_b, n_below, n_d, n_h, n_w] = args.encoded.shape;
  const Shape<4> shape{args.similarity.shape[1], n_d, n_h, n_w}, strides = dense_strides(shape);
  std::vector<float> values(static_cast<std::size_t>(n_elements(shape)));
  resample_cpu({args.similarity.slice(b), {values.data(), DType::kFloat32, shape, strides}},
               n_threads);
  const View<const float, 4> maps{values.data(), shape, strides};
  parallel_for(n_d * n_h, n_threads, [&, n_h = n_h](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::vector<float> hidden = hidden_row(args, maps, b, row / n_h, row % n_h);
      for (std::int64_t child = 0; child < 8; ++child)
        weight_children(args, hidden, b, row / n_h, row % n_h, child);
    }
  });
}

}  // namespace

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads) {
  for (std::int64_t b = 0; b < args.encoded.shape[0]; ++b) weight_case(args, b, n_threads);
}

}  // namespace fastbts
