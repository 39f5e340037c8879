#include <algorithm>

#include "core/cpu/parallel.h"
#include "ops/blend.h"

namespace fastbts {
namespace {

/// Adds window b to one row of the volume, if it covers it.
void add_window(const BlendArgs& args, std::int64_t b, std::int64_t k, std::int64_t d,
                std::int64_t h, float* total) {
  const auto logits_of = args.logits.as<float>();
  const auto& size = logits_of.shape;
  const std::int64_t p0 = d - *args.origins.at(b, 0), p1 = h - *args.origins.at(b, 1),
                     origin = *args.origins.at(b, 2);
  if (!Bounds{0, size[2]}.contains(p0) || !Bounds{0, size[3]}.contains(p1)) return;
  const float weight = *args.weights[0].at(b, p0) * *args.weights[1].at(b, p1);
  const float* weights = args.weights[2].at(b);
  const float* logits = logits_of.at(b, k, p0, p1);
  const std::int64_t begin = std::max<std::int64_t>(0, -origin),
                     end = std::min(size[4], args.total.shape[3] - origin);
  for (std::int64_t w = begin; w < end; ++w) total[origin + w] += weight * weights[w] * logits[w];
}

}  // namespace

void blend_cpu(const BlendArgs& args, int n_threads) {
  const auto [n_k, n_d, n_h, n_w] = args.total.shape;
  parallel_for(n_k * n_d, n_threads,
               [&, n_d = n_d, n_h = n_h](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   for (std::int64_t h = 0; h < n_h; ++h) {
                     for (std::int64_t b = 0; b < args.logits.shape[0]; ++b) {
                       add_window(args, b, i / n_d, i % n_d, h, args.total.at(i / n_d, i % n_d, h));
                     }
                   }
                 }
               });
}

}  // namespace fastbts
