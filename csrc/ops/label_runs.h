#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/array/tensor_view.h"
#include "core/cpu/parallel.h"

namespace fastbts {

/// Neighbouring voxels of one row that belong to parts: [begin, end).
struct Run {
  std::int32_t begin, end;
};

/// The runs of all rows, one row after the other; row r has those in [row_begin[r], row_begin[r +
/// 1]).
struct Runs {
  std::vector<Run> runs;
  std::vector<std::int64_t> row_begin;
};

/// The first label of a dense row from w on that is not 0, or at most seven before it.
inline std::int64_t skip_background(const std::uint8_t* row, std::int64_t w, std::int64_t n) {
  for (std::uint64_t eight = 0; w + 8 <= n; w += 8) {
    std::memcpy(&eight, row + w, 8);
    if (eight != 0) break;
  }
  return w;
}

/// Appends the runs of a row. Most labels are 0, which never belongs.
template <typename Belongs>
void find_runs(const std::uint8_t* row, std::int64_t stride, std::int64_t n, Belongs belongs,
               std::vector<Run>& runs) {
  with_step(stride, [&](auto step) {
    for (std::int64_t w = 0; w < n; ++w) {
      if (step == 1 && row[w] == 0) w = skip_background(row, w, n);
      if (w == n) break;
      if (!belongs(row[w * step])) continue;
      const std::int64_t begin = w;
      while (w < n && belongs(row[w * step])) ++w;
      runs.push_back({static_cast<std::int32_t>(begin), static_cast<std::int32_t>(w)});
    }
  });
}

/// The runs of voxels whose label belongs to parts.
template <typename Belongs>
Runs find_all_runs(const View<std::uint8_t, 3>& labels, Belongs belongs, int n_threads) {
  const auto [n_d, n_h, n_w] = labels.shape;
  Runs all{{}, std::vector<std::int64_t>(static_cast<std::size_t>(n_d * n_h + 1))};
  std::vector<std::vector<Run>> slices(static_cast<std::size_t>(n_d));
  parallel_for(n_d, n_threads, [&, n_h = n_h, n_w = n_w](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      auto& runs = slices[static_cast<std::size_t>(d)];
      for (std::int64_t h = 0; h < n_h; ++h) {
        find_runs(labels.at(d, h), labels.strides[2], n_w, belongs, runs);
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

/// What connects voxels.
enum class Touch { kFaces, kCorners };

/// Unites runs of two neighbouring rows that touch.
inline void unite_rows(const Runs& all, std::size_t row, std::size_t other, Touch touch,
                       Sets& sets) {
  const int reach = touch == Touch::kCorners;
  std::int64_t i = all.row_begin[row], j = all.row_begin[other];
  while (i < all.row_begin[row + 1] && j < all.row_begin[other + 1]) {
    const Run &a = all.runs[static_cast<std::size_t>(i)],
              &b = all.runs[static_cast<std::size_t>(j)];
    if (a.begin < b.end + reach && b.begin < a.end + reach) sets.unite(i, j);
    a.end < b.end ? ++i : ++j;
  }
}

inline Sets unite_runs(const Runs& all, std::int64_t n_d, std::int64_t n_h, Touch touch) {
  Sets sets(all.runs.size());
  for (std::int64_t d = 0; d < n_d; ++d) {
    for (std::int64_t h = 0; h < n_h; ++h) {
      const auto unite = [&](std::int64_t other_d, std::int64_t other_h) {
        if (other_d < 0 || !Bounds{0, n_h}.contains(other_h)) return;
        unite_rows(all, static_cast<std::size_t>(d * n_h + h),
                   static_cast<std::size_t>(other_d * n_h + other_h), touch, sets);
      };
      unite(d, h - 1);
      unite(d - 1, h);
      if (touch == Touch::kFaces) continue;
      unite(d - 1, h - 1);
      unite(d - 1, h + 1);
    }
  }
  return sets;
}

/// The labels of a box in the order of memory, forwards.
inline View<std::uint8_t, 3> in_memory_order(const View<std::uint8_t, 3>& any_order) {
  View<std::uint8_t, 3> labels = any_order;
  labels = labels.permuted(memory_order(labels.shape, labels.strides));
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (labels.strides[axis] < 0) labels = labels.mirrored(axis);
  }
  return labels;
}

}  // namespace fastbts
