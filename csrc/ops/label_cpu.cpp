#include <algorithm>
#include <mutex>
#include <vector>

#include "core/cpu/packed_rows.h"
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

/// Rows of the logits of WT, TC and ET, with a buffer for them.
template <typename T>
class RegionRows {
 public:
  RegionRows(const LabelArgs& args, const std::array<std::size_t, 3>& order)
      : rows_(args.logits.as<T>(), args.patch), offset_(args.offset), order_(order) {
    for (auto& buffer : buffers_) buffer.resize(static_cast<std::size_t>(rows_.size()));
  }

  /// Row (a, b) of the box with its axes in the order.
  Row at(std::int64_t a, std::int64_t b) {
    Shape<3> voxel = offset_;
    voxel[order_[0]] += a;
    voxel[order_[1]] += b;
    return {row(0, voxel), row(1, voxel), row(2, voxel)};
  }

 private:
  const float* row(std::size_t k, const Shape<3>& voxel) {
    return rows_.row(static_cast<std::int64_t>(k), voxel[0], voxel[1], buffers_[k].data()) +
           voxel[2];
  }

  PackedRows<T> rows_;
  Shape<3> offset_;
  std::array<std::size_t, 3> order_;
  std::array<std::vector<float>, 3> buffers_;
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
  const View<std::uint8_t, 3> inside = args.labels.cropped(args.box);
  const auto order = transfer_order({0, 1, 2}, memory_order(inside.shape, inside.strides));
  const View<std::uint8_t, 3> target = inside.permuted(order);

  RegionCounts total;
  std::mutex mutex;
  dispatch_float(args.logits.dtype, [&](auto type) {
    parallel_for(target.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
      RegionRows<typename decltype(type)::type> rows(args, order);
      RegionCounts part;
      for (std::int64_t d = begin; d < end; ++d) {
        transfer_rows(target, d, false, [&](std::int64_t a, std::int64_t b, std::uint8_t* out) {
          wide([&] {
            add(part, label_row(rows.at(a, b), least, args.values, target.shape[2], out));
          });
        });
      }
      const std::lock_guard<std::mutex> lock(mutex);
      add(total, part);
    });
  });
  const std::array<std::int64_t, 4> counts{total.n_wt, total.n_tc, total.n_et, total.n_nonfinite};
  std::copy(counts.begin(), counts.end(), args.counts.data);
}

}  // namespace fastbts
