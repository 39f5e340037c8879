#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/array/dense.h"
#include "ops/label_runs.h"
#include "ops/stray_core.h"
#include "ops/stray_core_rule.h"

namespace fastbts {
namespace {

using Index = std::array<std::int64_t, 3>;

/// What is known of a voxel: nothing, or that it belongs to core that stays, or that is stray.
enum Mark : std::uint8_t { kNone, kStays, kStray };

/// Inner voxels of a part, its faces to other core, and those to core that touches enhancing
/// tumour.
struct Part {
  std::int64_t n_voxels, n_faces, n_to_et;

  void operator+=(const Part& other) {
    n_voxels += other.n_voxels;
    n_faces += other.n_faces;
    n_to_et += other.n_to_et;
  }
};

/// Calls fn(d, h, w) for the voxels that share a face with one.
template <typename Fn>
void for_each_neighbour(const Shape<3>& shape, const Index& at, Fn fn) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    for (const std::int64_t side : {-1, 1}) {
      Index other = at;
      other[axis] += side;
      if (Bounds{0, shape[axis]}.contains(other[axis])) fn(other[0], other[1], other[2]);
    }
  }
}

/// Labels around all core, and a mark for each.
class Core {
 public:
  Core(const View<std::uint8_t, 3>& labels, const std::array<std::uint8_t, 3>& values)
      : labels_(labels),
        edema_(values[0]),
        core_(values[1]),
        et_(values[2]),
        memory_(static_cast<std::size_t>(n_elements(labels.shape)), kNone),
        marks_{memory_.data(), labels.shape, dense_strides(labels.shape)} {}

  const View<std::uint8_t, 3>& marks() const { return marks_; }

  /// Marks the inner voxels: they stay.
  void mark_inner() const {
    const auto [n_d, n_h, n_w] = labels_.shape;
    for (std::int64_t d = 1; d + 1 < n_d; ++d) {
      for (std::int64_t h = 1; h + 1 < n_h; ++h) mark_inner(d, h);
    }
  }

  /// One run of inner voxels as a part of its own, without its faces to other runs.
  Part part_of(std::int64_t d, std::int64_t h, const Run& run) const {
    Part part{run.end - run.begin, 0, 0};
    for (const std::int64_t w : {run.begin - 1, run.end}) add_face(d, h, w, part);
    for (const std::int64_t side : {-1, 1}) {
      add_faces(d + side, h, run, part);
      add_faces(d, h + side, run, part);
    }
    return part;
  }

  /// Marks core without a mark as its neighbours by faces are; stray ones win.
  void spread() const {
    std::vector<std::pair<std::uint8_t*, std::uint8_t>> reached;
    for_each_voxel([&](std::int64_t d, std::int64_t h, std::int64_t w) {
      if (*marks_.at(d, h, w) != kNone || *labels_.at(d, h, w) != core_) return;
      std::uint8_t mark = kNone;
      for_each_neighbour(labels_.shape, {d, h, w},
                         [&](auto... other) { mark = std::max(mark, *marks_.at(other...)); });
      if (mark != kNone) reached.emplace_back(marks_.at(d, h, w), mark);
    });
    for (const auto& [at, mark] : reached) *at = mark;
  }

  /// Makes what is marked as stray oedema; returns its voxels.
  std::int64_t change() const {
    std::int64_t n_changed = 0;
    for_each_voxel([&](std::int64_t d, std::int64_t h, std::int64_t w) {
      if (*marks_.at(d, h, w) != kStray) return;
      *labels_.at(d, h, w) = edema_;
      ++n_changed;
    });
    return n_changed;
  }

 private:
  /// One row, whose four neighbouring rows are inside.
  void mark_inner(std::int64_t d, std::int64_t h) const {
    const std::uint8_t *row = labels_.at(d, h), *above = labels_.at(d - 1, h),
                       *below = labels_.at(d + 1, h), *before = labels_.at(d, h - 1),
                       *after = labels_.at(d, h + 1);
    std::uint8_t* marks = marks_.at(d, h);
    with_step(labels_.strides[2], [&](auto step) {
      const auto is_core = [&](const std::uint8_t* a, std::int64_t w) -> int {
        return a[w * step] == core_;
      };
      for (std::int64_t w = 1; w + 1 < labels_.shape[2]; ++w) {
        const int inner = is_core(row, w - 1) & is_core(row, w) & is_core(row, w + 1) &
                          is_core(above, w) & is_core(below, w) & is_core(before, w) &
                          is_core(after, w);
        marks[w] = static_cast<std::uint8_t>(inner * kStays);
      }
    });
  }

  /// Adds the faces of a run of inner voxels to core of a neighbouring row.
  void add_faces(std::int64_t d, std::int64_t h, const Run& run, Part& part) const {
    const std::uint8_t* marks = marks_.at(d, h);
    for (std::int64_t w = run.begin; w < run.end; ++w) {
      if (marks[w] == kNone) add_face(d, h, w, part);
    }
  }

  void add_face(std::int64_t d, std::int64_t h, std::int64_t w, Part& part) const {
    bool touches_et = false;
    for_each_neighbour(labels_.shape, {d, h, w},
                       [&](auto... other) { touches_et |= *labels_.at(other...) == et_; });
    ++part.n_faces;
    part.n_to_et += touches_et;
  }

  template <typename Fn>
  void for_each_voxel(Fn fn) const {
    for (std::int64_t d = 0; d < labels_.shape[0]; ++d) {
      for (std::int64_t h = 0; h < labels_.shape[1]; ++h) {
        for (std::int64_t w = 0; w < labels_.shape[2]; ++w) fn(d, h, w);
      }
    }
  }

  View<std::uint8_t, 3> labels_;
  std::uint8_t edema_, core_, et_;
  std::vector<std::uint8_t> memory_;
  View<std::uint8_t, 3> marks_;
};

/// Calls fn(d, h, i) for each run i.
template <typename Fn>
void for_each_run(const Runs& all, std::int64_t n_h, Fn fn) {
  for (std::size_t row = 0; row + 1 < all.row_begin.size(); ++row) {
    const auto r = static_cast<std::int64_t>(row);
    for (std::int64_t i = all.row_begin[row]; i < all.row_begin[row + 1]; ++i)
      fn(r / n_h, r % n_h, static_cast<std::size_t>(i));
  }
}

/// The least box around all runs, of which there are some, and one voxel more where there is room.
Box box_around(const Runs& all, const Shape<3>& shape) {
  Box box{{{shape[0], 0}, {shape[1], 0}, {shape[2], 0}}};
  for_each_run(all, shape[1], [&](std::int64_t d, std::int64_t h, std::size_t i) {
    const Box run{{{d, d + 1}, {h, h + 1}, {all.runs[i].begin, all.runs[i].end}}};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      box[axis].begin = std::min(box[axis].begin, std::max<std::int64_t>(0, run[axis].begin - 1));
      box[axis].end = std::max(box[axis].end, std::min(shape[axis], run[axis].end + 1));
    }
  });
  return box;
}

std::size_t root_of(Sets& sets, std::size_t run) {
  return static_cast<std::size_t>(sets.root(static_cast<std::int64_t>(run)));
}

/// The part of each set of runs of inner voxels, at its root.
std::vector<Part> measure(const Core& core, const Runs& inner, Sets& sets) {
  std::vector<Part> parts(inner.runs.size());
  for_each_run(inner, core.marks().shape[1], [&](std::int64_t d, std::int64_t h, std::size_t i) {
    parts[root_of(sets, i)] += core.part_of(d, h, inner.runs[i]);
  });
  return parts;
}

void mark_strays(const Core& core, const Runs& inner, Sets& sets, const std::vector<Part>& parts) {
  for_each_run(inner, core.marks().shape[1], [&](std::int64_t d, std::int64_t h, std::size_t i) {
    const Part& part = parts[root_of(sets, i)];
    const Run& run = inner.runs[i];
    if (is_stray(part.n_faces, part.n_to_et))
      std::fill_n(core.marks().at(d, h, run.begin), run.end - run.begin, kStray);
  });
}

}  // namespace

void stray_core_cpu(const StrayCoreArgs& args, int n_threads) {
  std::fill_n(args.counts.data, kStrayCoreCounts, 0);
  const View<std::uint8_t, 3> labels = in_memory_order(args.labels.cropped(args.box));
  const auto is_core = [value = args.values[1]](std::uint8_t label) { return label == value; };
  const Runs all = find_all_runs(labels, is_core, n_threads);
  if (all.runs.empty()) return;
  const Core core(labels.cropped(box_around(all, labels.shape)), args.values);
  core.mark_inner();
  const auto is_set = [](std::uint8_t mark) { return mark != kNone; };
  const Runs inner = find_all_runs(core.marks(), is_set, n_threads);
  Sets sets = unite_runs(inner, core.marks().shape[0], core.marks().shape[1], Touch::kFaces);
  std::vector<Part> parts = measure(core, inner, sets);
  std::int64_t &n_enclosed = args.counts.data[0], &n_stray = args.counts.data[1];
  for (Part& part : parts) {
    if (part.n_voxels < args.min_voxels) part = {};  // neither stray nor enclosed: no voxels
    if (is_enclosed(part.n_faces, part.n_to_et)) n_enclosed += part.n_voxels;
    if (is_stray(part.n_faces, part.n_to_et)) n_stray += part.n_voxels;
  }
  if (!strays_change(n_enclosed, n_stray)) return;
  mark_strays(core, inner, sets, parts);
  for (int step = 0; step < kCoreReach; ++step) core.spread();
  args.counts.data[2] = core.change();
}

}  // namespace fastbts
