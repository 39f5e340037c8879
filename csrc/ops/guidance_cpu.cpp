#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/guidance.h"

namespace fastbts {
namespace {

float dot(const float* a, const float* b, std::int64_t n) {
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

float length(const float* x, std::int64_t n) { return std::max(std::sqrt(dot(x, x, n)), 1e-12F); }

float scale_of(std::int64_t n) { return 1 / std::sqrt(static_cast<float>(n)); }

/// Makes weights of logits: exp(x - max) / sum.
void softmax(float* x, std::int64_t n) {
  const float largest = *std::max_element(x, x + n);
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] = fast_exp(x[i] - largest);
  for (std::int64_t i = 0; i < n; ++i) x[i] /= sum;
}

/// Address of voxel i of case b of features (B, D, H, W, E).
template <typename T>
T* voxel(const View<T, 5>& features, std::int64_t b, std::int64_t i) {
  const std::int64_t n_w = features.shape[3], n_h = features.shape[2];
  return features.at(b, i / n_w / n_h, i / n_w % n_h, i % n_w);
}

/// Calls fn(b, i) for all voxels.
template <typename Fn>
void for_voxels(const Shape<5>& shape, int n_threads, Fn&& fn) {
  const std::int64_t n = shape[1] * shape[2] * shape[3];
  parallel_for(shape[0] * n, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) fn(i / n, i % n);
  });
}

}  // namespace

void similarity_cpu(const SimilarityArgs& args, int n_threads) {
  const auto image = args.image.as<float>();
  const auto out = args.out.as<float>();
  const std::int64_t n_e = image.shape[4], n_w = image.shape[3], n_h = image.shape[2];
  for_voxels(image.shape, n_threads, [&](std::int64_t b, std::int64_t i) {
    const float* const x = voxel(image, b, i);
    for (std::int64_t k = 0; k < args.text.shape[0]; ++k) {
      const float* const text = args.text.at(k);
      const float cosine = dot(x, text, n_e) / (length(x, n_e) * length(text, n_e));
      *out.at(b, k, i / n_w / n_h, i / n_w % n_h, i % n_w) = args.scale * cosine + *args.bias.at(k);
    }
  });
}

void text_reads_cpu(const TextReadsArgs& args, int) {
  const auto key = args.key.as<float>(), value = args.value.as<float>();
  const auto [n_b, n_k, n_e] = args.query.shape;
  const std::int64_t n = args.scratch.shape[2];
  for (std::int64_t row = 0; row < n_b * n_k; ++row) {
    const std::int64_t b = row / n_k, k = row % n_k;
    float *const weights = args.scratch.at(b, k), *const out = args.out.at(b, k);
    for (std::int64_t i = 0; i < n; ++i)
      weights[i] = dot(args.query.at(b, k), voxel(key, b, i), n_e) * scale_of(n_e);
    softmax(weights, n);
    std::fill_n(out, n_e, 0.0F);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t e = 0; e < n_e; ++e) out[e] += weights[i] * voxel(value, b, i)[e];
  }
}

void image_reads_cpu(const ImageReadsArgs& args, int n_threads) {
  const auto query = args.query.as<float>();
  const auto out = args.out.as<float>();
  const std::int64_t n_k = args.key.shape[1], n_e = args.key.shape[2];
  for_voxels(query.shape, n_threads, [&](std::int64_t b, std::int64_t i) {
    float weights[kMostPrompts];
    for (std::int64_t k = 0; k < n_k; ++k)
      weights[k] = dot(voxel(query, b, i), args.key.at(b, k), n_e) * scale_of(n_e);
    softmax(weights, n_k);
    for (std::int64_t e = 0; e < n_e; ++e) {
      float sum = 0;
      for (std::int64_t k = 0; k < n_k; ++k) sum += weights[k] * args.value.at(b, k)[e];
      voxel(out, b, i)[e] = sum;
    }
  });
}

}  // namespace fastbts
