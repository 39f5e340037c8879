#include <algorithm>
#include <vector>

#include "core/cpu/parallel.h"
#include "ops/components.h"

namespace fastbts {
namespace {

/// Neighbouring non-zero voxels of one row: [begin, end).
struct Run {
  std::int32_t begin, end;
};

/// The runs of all rows, one row after the other; row r has those in [row_begin[r], row_begin[r +
/// 1]).
struct Runs {
  std::vector<Run> runs;
  std::vector<std::int64_t> row_begin;
};

/// Appends the runs of a row.
void find_runs(const std::uint8_t* row, std::int64_t stride, std::int64_t n,
               std::vector<Run>& runs) {
  with_step(stride, [&](auto step) {
    for (std::int64_t w = 0; w < n; ++w) {
      if (row[w * step] == 0) continue;
      const std::int64_t begin = w;
      while (w < n && row[w * step] != 0) ++w;
      runs.push_back({static_cast<std::int32_t>(begin), static_cast<std::int32_t>(w)});
    }
  });
}

Runs find_all_runs(const View<std::uint8_t, 3>& labels, int n_threads) {
  const auto [n_d, n_h, n_w] = labels.shape;
  Runs all{{}, std::vector<std::int64_t>(static_cast<std::size_t>(n_d * n_h + 1))};
  std::vector<std::vector<Run>> slices(static_cast<std::size_t>(n_d));
  parallel_for(n_d, n_threads, [&, n_h = n_h, n_w = n_w](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      auto& runs = slices[static_cast<std::size_t>(d)];
      for (std::int64_t h = 0; h < n_h; ++h) {
        find_runs(labels.at(d, h), labels.strides[2], n_w, runs);
        all.row_begin[static_cast<std::size_t>(d * n_h + h + 1)] =
            static_cast<std::int64_t>(runs.size());
      }
    }
  });
  for (std::int64_t d = 0; d < n_d; ++d) {
    const auto before = static_cast<std::int64_t>(all.runs.size());
    for (std::int64_t h = 0; h < n_h; ++h)
      all.row_begin[static_cast<std::size_t>(d * n_h + h + 1)] += before;
    auto& runs = slices[static_cast<std::size_t>(d)];
    all.runs.insert(all.runs.end(), runs.begin(), runs.end());
    runs = {};
  }
  return all;
}

/// Disjoint sets of runs; the first run of a set is its root.
class Sets {
 public:
  explicit Sets(std::size_t n) : parent_(n) {
    for (std::size_t i = 0; i < n; ++i) parent_[i] = static_cast<std::int64_t>(i);
  }

  std::int64_t root(std::int64_t i) {
    while (parent(i) != i) i = parent(i) = parent(parent(i));  // halves the path
    return i;
  }

  void unite(std::int64_t a, std::int64_t b) {
    a = root(a);
    b = root(b);
    parent(std::max(a, b)) = std::min(a, b);
  }

 private:
  std::int64_t& parent(std::int64_t i) { return parent_[static_cast<std::size_t>(i)]; }

  std::vector<std::int64_t> parent_;
};

/// Unites runs of two neighbouring rows that touch, also by a corner.
void unite_rows(const Runs& all, std::size_t row, std::size_t other, Sets& sets) {
  std::int64_t i = all.row_begin[row], j = all.row_begin[other];
  while (i < all.row_begin[row + 1] && j < all.row_begin[other + 1]) {
    const Run &a = all.runs[static_cast<std::size_t>(i)],
              &b = all.runs[static_cast<std::size_t>(j)];
    if (a.begin <= b.end && b.begin <= a.end) sets.unite(i, j);
    a.end < b.end ? ++i : ++j;
  }
}

Sets unite_runs(const Runs& all, std::int64_t n_d, std::int64_t n_h) {
  Sets sets(all.runs.size());
  for (std::int64_t d = 0; d < n_d; ++d) {
    for (std::int64_t h = 0; h < n_h; ++h) {
      const auto unite = [&](std::int64_t other_d, std::int64_t other_h) {
        if (other_d < 0 || !Bounds{0, n_h}.contains(other_h)) return;
        unite_rows(all, static_cast<std::size_t>(d * n_h + h),
                   static_cast<std::size_t>(other_d * n_h + other_h), sets);
      };
      unite(d, h - 1);
      for (const std::int64_t step : {-1, 0, 1}) unite(d - 1, h + step);
    }
  }
  return sets;
}

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
  View<std::uint8_t, 3> labels = args.labels.cropped(args.box);
  labels = labels.permuted(memory_order(labels.shape, labels.strides));
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (labels.strides[axis] < 0) labels = labels.mirrored(axis);
  }
  const Runs all = find_all_runs(labels, n_threads);
  Sets sets = unite_runs(all, labels.shape[0], labels.shape[1]);
  std::fill_n(args.counts.data, kComponentsCounts, 0);
  remove_small(labels, all, sets, args.min_voxels, args.counts.data);
}

}  // namespace fastbts
