#include <algorithm>
#include <vector>

#include "ops/components.h"
#include "ops/label_runs.h"

namespace fastbts {
namespace {

/// Sets a run to 0 and counts its labels.
void erase(std::uint8_t* row, std::int64_t stride, const Run& run, std::int64_t* n_removed) {
  for (std::int64_t w = run.begin; w < run.end; ++w) {
    ++n_removed[row[w * stride]];
    row[w * stride] = 0;
  }
}

/// counts: zeros at the start.
void remove_small(const View<std::uint8_t, 3>& labels, const Runs& all, Sets& sets,
                  std::int64_t min_voxels, std::int64_t* counts) {
  const auto n_runs = static_cast<std::int64_t>(all.runs.size());
  std::vector<std::int64_t> n_voxels(all.runs.size());  // of each set, at its root
  const auto size = [&](std::int64_t i) -> std::int64_t& {
    return n_voxels[static_cast<std::size_t>(sets.root(i))];
  };
  const auto run = [&](std::int64_t i) { return all.runs[static_cast<std::size_t>(i)]; };
  for (std::int64_t i = 0; i < n_runs; ++i) size(i) += run(i).end - run(i).begin;

  for (std::size_t row = 0; row + 1 < all.row_begin.size(); ++row) {
    const auto d = static_cast<std::int64_t>(row) / labels.shape[1],
               h = static_cast<std::int64_t>(row) % labels.shape[1];
    for (std::int64_t i = all.row_begin[row]; i < all.row_begin[row + 1]; ++i) {
      const bool first = sets.root(i) == i, small = size(i) < min_voxels;
      counts[0] += first;
      counts[1] += first && !small;
      if (small) erase(labels.at(d, h), labels.strides[2], run(i), counts + 2);
    }
  }
}

}  // namespace

void components_cpu(const ComponentsArgs& args, int n_threads) {
  const View<std::uint8_t, 3> labels = in_memory_order(args.labels.cropped(args.box));
  const auto is_set = [](std::uint8_t label) { return label != 0; };
  const Runs all = find_all_runs(labels, is_set, n_threads);
  Sets sets = unite_runs(all, labels.shape[0], labels.shape[1], Touch::kCorners);
  std::fill_n(args.counts.data, kComponentsCounts, 0);
  remove_small(labels, all, sets, args.min_voxels, args.counts.data);
}

}  // namespace fastbts
