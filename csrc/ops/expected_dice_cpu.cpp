#include <algorithm>
#include <mutex>
#include <vector>

#include "core/cpu/activations.h"
#include "core/cpu/packed_rows.h"
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

/// Voxels that are sampled along an axis of the box.
std::int64_t sampled(const ExpectedDiceArgs& args, std::size_t axis) {
  return (args.size[axis] + args.step - 1) / args.step;
}

/// Plane d of region k in the box; `row` is a buffer for a row.
template <typename T>
Sums sum_plane(const ExpectedDiceArgs& args, std::int64_t k, std::int64_t d,
               std::vector<float>& row) {
  const PackedRows<T> rows(args.logits.as<T>(), args.patch);
  const auto region = static_cast<std::size_t>(k);
  const float least = least_logit(args.thresholds[region]),
              inverse_temperature = static_cast<float>(1 / args.temperatures[region]);
  const std::int64_t n = sampled(args, 2);
  Sums part;
  wide([&] {
    for (std::int64_t h = 0; h < args.size[1]; h += args.step) {
      const float* logits = rows.row(k, args.offset[0] + d, args.offset[1] + h, row.data());
      add(part, sum_row(logits + args.offset[2], args.step, n, least, inverse_temperature));
    }
  });
  return part;
}

}  // namespace

void expected_dice_cpu(const ExpectedDiceArgs& args, int n_threads) {
  const Shape<4> voxels = unpacked_shape(args.logits.shape, args.patch);
  const std::int64_t n_d = sampled(args, 0);
  std::vector<Sums> totals(static_cast<std::size_t>(voxels[0]));
  std::mutex mutex;
  dispatch_float(args.logits.dtype, [&](auto type) {
    parallel_for(voxels[0] * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(voxels[3]));
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t k = i / n_d, d = i % n_d * args.step;
        const Sums part = sum_plane<typename decltype(type)::type>(args, k, d, row);
        const std::lock_guard<std::mutex> lock(mutex);
        add(totals[static_cast<std::size_t>(k)], part);
      }
    });
  });
  std::int64_t* out = args.sums.data;
  for (const Sums& total : totals) {
    for (const std::int64_t sum :
         {total.n_inside, total.all, total.inside, std::int64_t{total.most}})
      *out++ = sum;
  }
}

}  // namespace fastbts
