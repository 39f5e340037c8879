#include <algorithm>
#include <mutex>

#include "core/cpu/parallel.h"
#include "core/cpu/tile.h"
#include "core/cpu/wide.h"
#include "ops/label.h"

namespace fastbts {
namespace {

struct RegionCounts {
  std::int64_t n_wt = 0, n_tc = 0, n_et = 0, n_nonfinite = 0;
};

struct Row {
  const float *wt, *tc, *et;
};

RegionCounts label_row(Row row, std::array<float, 3> least, std::array<std::uint8_t, 3> values,
                       std::int64_t n, std::uint8_t* __restrict out) {
  const auto [ed, ncr, enhancing] = values;
  std::int32_t n_wt = 0, n_tc = 0, n_et = 0, n_nonfinite = 0;
  for (std::int64_t w = 0; w < n; ++w) {
    const bool et = row.et[w] >= least[2];
    const bool tc = et | (row.tc[w] >= least[1]);
    const bool wt = tc | (row.wt[w] >= least[0]);
    out[w] = et ? enhancing : tc ? ncr : wt ? ed : std::uint8_t{0};
    n_wt += wt;
    n_tc += tc;
    n_et += et;
    // The product with 0 is NaN for NaN and infinity.
    n_nonfinite += !(row.wt[w] * 0 + row.tc[w] * 0 + row.et[w] * 0 == 0);
  }
  return {n_wt, n_tc, n_et, n_nonfinite};
}

void add(RegionCounts& total, const RegionCounts& part) {
  total.n_wt += part.n_wt;
  total.n_tc += part.n_tc;
  total.n_et += part.n_et;
  total.n_nonfinite += part.n_nonfinite;
}

}  // namespace

void label_cpu(const LabelArgs& args, int n_threads) {
  const std::array<float, 3> least{least_logit(args.thresholds[0]), least_logit(args.thresholds[1]),
                                   least_logit(args.thresholds[2])};
  const Shape<3> size = size_of(args.box);
  const auto source = [&](std::int64_t k) {
    return args.logits.as<float>()
        .cropped({{{args.offset[0], args.offset[0] + size[0]},
                   {args.offset[1], args.offset[1] + size[1]},
                   {args.offset[2], args.offset[2] + size[2]}}})
        .slice(k);
  };
  const View<std::uint8_t, 3> inside = args.labels.cropped(args.box);
  const auto order = transfer_order({0, 1, 2}, memory_order(inside.shape, inside.strides));
  const View<std::uint8_t, 3> target = inside.permuted(order);
  const View<const float, 3> wt = source(0).permuted(order), tc = source(1).permuted(order),
                             et = source(2).permuted(order);

  RegionCounts total;
  std::mutex mutex;
  parallel_for(target.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    RegionCounts part;
    for (std::int64_t d = begin; d < end; ++d) {
      transfer_rows(target, d, false, [&](std::int64_t a, std::int64_t b, std::uint8_t* out) {
        const Row row{wt.at(a, b), tc.at(a, b), et.at(a, b)};
        wide([&] { add(part, label_row(row, least, args.values, target.shape[2], out)); });
      });
    }
    const std::lock_guard<std::mutex> lock(mutex);
    add(total, part);
  });
  const std::array<std::int64_t, 4> counts{total.n_wt, total.n_tc, total.n_et, total.n_nonfinite};
  std::copy(counts.begin(), counts.end(), args.counts.data);
}

}  // namespace fastbts
