#include <vector>

#include "ops/label_runs.h"
#include "ops/stray_core.h"
#include "ops/stray_core_rule.h"

namespace fastbts {
namespace {

/// Voxels of a part, its faces to other voxels, and those to enhancing tumour.
struct Part {
  std::int64_t n_voxels, n_faces, n_to_et;

  void operator+=(const Part& other) {
    n_voxels += other.n_voxels;
    n_faces += other.n_faces;
    n_to_et += other.n_to_et;
  }
};

/// The labels and which of them are core and enhancing tumour.
struct Core {
  const View<std::uint8_t, 3>& labels;
  std::uint8_t core, et;

  /// One run as a part of its own, without its faces to other runs.
  Part part_of(std::int64_t d, std::int64_t h, const Run& run) const {
    const std::int64_t step = labels.strides[2];
    const std::uint8_t* row = labels.at(d, h);
    Part part{run.end - run.begin, 2, 0};
    part.n_to_et += run.begin > 0 && row[(run.begin - 1) * step] == et;
    part.n_to_et += run.end < labels.shape[2] && row[run.end * step] == et;
    for (const std::int64_t side : {-1, 1}) {
      add_row(d + side, h, run, part);
      add_row(d, h + side, run, part);
    }
    return part;
  }

  /// Adds the faces of a run to a neighbouring row, which may be outside.
  void add_row(std::int64_t d, std::int64_t h, const Run& run, Part& part) const {
    if (!Bounds{0, labels.shape[0]}.contains(d) || !Bounds{0, labels.shape[1]}.contains(h)) {
      part.n_faces += run.end - run.begin;
      return;
    }
    const std::uint8_t* row = labels.at(d, h);
    for (std::int64_t w = run.begin; w < run.end; ++w) {
      const std::uint8_t other = row[w * labels.strides[2]];
      part.n_faces += other != core;
      part.n_to_et += other == et;
    }
  }
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

std::size_t root_of(Sets& sets, std::size_t run) {
  return static_cast<std::size_t>(sets.root(static_cast<std::int64_t>(run)));
}

/// The part of each set of runs, at its root.
std::vector<Part> measure(const Core& core, const Runs& all, Sets& sets) {
  std::vector<Part> parts(all.runs.size());
  for_each_run(all, core.labels.shape[1], [&](std::int64_t d, std::int64_t h, std::size_t i) {
    parts[root_of(sets, i)] += core.part_of(d, h, all.runs[i]);
  });
  return parts;
}

/// Gives the voxels of stray parts another label.
void change_strays(const View<std::uint8_t, 3>& labels, std::uint8_t edema, const Runs& all,
                   Sets& sets, const std::vector<Part>& parts) {
  for_each_run(all, labels.shape[1], [&](std::int64_t d, std::int64_t h, std::size_t i) {
    const Part& part = parts[root_of(sets, i)];
    if (!is_stray(part.n_faces, part.n_to_et)) return;
    std::uint8_t* row = labels.at(d, h);
    for (std::int64_t w = all.runs[i].begin; w < all.runs[i].end; ++w)
      row[w * labels.strides[2]] = edema;
  });
}

}  // namespace

void stray_core_cpu(const StrayCoreArgs& args, int n_threads) {
  const View<std::uint8_t, 3> labels = in_memory_order(args.labels.cropped(args.box));
  const auto [edema, core, et] = args.values;
  const auto is_core = [core = core](std::uint8_t label) { return label == core; };
  const Runs all = find_all_runs(labels, is_core, n_threads);
  Sets sets = unite_runs(all, labels.shape[0], labels.shape[1], Touch::kFaces);
  std::vector<Part> parts = measure({labels, core, et}, all, sets);
  std::int64_t n_enclosed = 0, n_stray = 0;
  for (Part& part : parts) {
    if (part.n_voxels < args.min_voxels) part = {};  // neither stray nor enclosed: no voxels
    if (is_enclosed(part.n_faces, part.n_to_et)) n_enclosed += part.n_voxels;
    if (is_stray(part.n_faces, part.n_to_et)) n_stray += part.n_voxels;
  }
  const bool change = n_stray > 0 && strays_change(n_enclosed, n_stray);
  args.counts.data[0] = n_enclosed;
  args.counts.data[1] = n_stray;
  args.counts.data[2] = change ? n_stray : 0;
  if (change) change_strays(labels, edema, all, sets, parts);
}

}  // namespace fastbts
