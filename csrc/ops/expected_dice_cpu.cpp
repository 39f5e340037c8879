#include <algorithm>
#include <mutex>

#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/expected_dice.h"
#include "ops/label.h"

namespace fastbts {
namespace {

struct Sums {
  std::int64_t n_inside = 0, all = 0, inside = 0;
  std::int32_t most = 0;
};

/// Voxels `step` apart in a row.
Sums sum_row(const float* __restrict logits, std::int64_t step, std::int64_t n, float least,
             float inverse_temperature) {
  std::int64_t all = 0, inside = 0;
  std::int32_t n_inside = 0, most = 0;
  for (std::int64_t w = 0; w < n; ++w) {
    const float logit = logits[w * step], p = sigmoid(logit * inverse_temperature);
    const auto units = static_cast<std::int32_t>((p > 0 ? p : 0) * kProbabilityUnits);
    const bool is_inside = logit >= least;
    n_inside += is_inside;
    all += units;
    inside += is_inside ? units : 0;
    most = std::max(most, units);
  }
  return {n_inside, all, inside, most};
}

void add(Sums& total, const Sums& part) {
  total.n_inside += part.n_inside;
  total.all += part.all;
  total.inside += part.inside;
  total.most = std::max(total.most, part.most);
}

}  // namespace

void expected_dice_cpu(const ExpectedDiceArgs& args, int n_threads) {
  const AnyView<4> sample = sampled(args);
  const auto [n_k, n_d, n_h, n_w] = sample.shape;
  std::vector<Sums> totals(static_cast<std::size_t>(n_k));
  std::mutex mutex;
  parallel_for(n_k * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t k = i / n_d;
      const auto plane = sample.as<float>().slice(k).slice(i % n_d);
      const float least = least_logit(args.thresholds[static_cast<std::size_t>(k)]);
      Sums part;
      wide([&, n_rows = n_h, n = n_w] {
        for (std::int64_t h = 0; h < n_rows; ++h) {
          add(part, sum_row(plane.at(h), plane.strides[1], n, least,
                            static_cast<float>(1 / args.temperature)));
        }
      });
      const std::lock_guard<std::mutex> lock(mutex);
      add(totals[static_cast<std::size_t>(k)], part);
    }
  });
  std::int64_t* out = args.sums.data;
  for (const Sums& total : totals) {
    for (const std::int64_t sum :
         {total.n_inside, total.all, total.inside, std::int64_t{total.most}})
      *out++ = sum;
  }
}

}  // namespace fastbts
