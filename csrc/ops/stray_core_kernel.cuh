#pragma once

#include "ops/label_parts.cuh"
#include "ops/stray_core_rule.h"

/// Memory traffic (estimate) of 144 x 176 x 144 voxels: labels twice, parents and marks 11 times,
/// counts of parts 4 times: 226 MB, 75 us at 3.0 TB/s, 53 us at 4.3 TB/s; expected 160 and 130 us.
/// One memset, nine launches.
namespace fastbts {

/// Values of oedema, necrotic core and enhancing tumour.
struct CoreValues {
  std::uint8_t edema, core, et;
};

/// Scratch of one int32 for each voxel of the box and each of: the parent of an inner voxel in its
/// part, later a mark; at the root, voxels of the part, its faces to other core, and those to core
/// that touches enhancing tumour.
struct CoreParts {
  int *parent, *n_voxels, *n_faces, *n_to_et;
};

/// A mark says whether core is stray, and after how many steps from inner voxels it was reached;
/// those come after no step. No mark is -1.
FASTBTS_DEVICE int mark_of(int step, bool is_stray) { return 2 * step + is_stray; }
FASTBTS_DEVICE bool is_marked_stray(int mark) { return mark >= 0 && mark % 2 == 1; }

/// Calls fn(j, label) for the voxels of the box that share a face with voxel i.
template <typename Fn>
FASTBTS_DEVICE void for_each_neighbour(const LabelBox& box, int i, Fn fn) {
  const Voxel at(box, i);
  const int index[3] = {at.d, at.h, at.w}, steps[3] = {box.size[1] * box.size[2], box.size[2], 1};
  const std::uint8_t* label = label_at(box, i);
  for (int axis = 0; axis < 3; ++axis) {
    if (index[axis] > 0) fn(i - steps[axis], label[-box.steps[axis]]);
    if (index[axis] + 1 < box.size[axis]) fn(i + steps[axis], label[box.steps[axis]]);
  }
}

/// How many neighbours of voxel i have a label.
FASTBTS_DEVICE int n_beside(const LabelBox& box, int i, std::uint8_t wanted) {
  int n = 0;
  for_each_neighbour(box, i, [&](int, std::uint8_t label) { n += label == wanted; });
  return n;
}

/// Each inner voxel is a part of its own, others are -1.
FASTBTS_KERNEL void stray_core_begin_kernel(LabelBox box, CoreValues values, CoreParts parts) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    const int here = static_cast<int>(i);
    const bool inner = *label_at(box, i) == values.core && n_beside(box, here, values.core) == 6;
    parts.parent[i] = inner ? here : -1;
    parts.n_voxels[i] = parts.n_faces[i] = parts.n_to_et[i] = 0;
  }
}

/// Unites each voxel with the three that share a face and come before it.
FASTBTS_KERNEL void stray_core_unite_kernel(LabelBox box, int* parent) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (parent[i] < 0) continue;
    const Voxel at(box, i);
    const int here = static_cast<int>(i), step_h = box.size[2], step_d = box.size[1] * box.size[2];
    if (at.w > 0 && parent[here - 1] >= 0) unite(parent, here, here - 1);
    if (at.h > 0 && parent[here - step_h] >= 0) unite(parent, here, here - step_h);
    if (at.d > 0 && parent[here - step_d] >= 0) unite(parent, here, here - step_d);
  }
}

/// Makes the root the parent of each inner voxel, and counts voxels and faces of each part there.
FASTBTS_KERNEL void stray_core_count_kernel(LabelBox box, CoreValues values, CoreParts parts) {
  for_each_voxel(box, [&](int i) {
    int root = -1;
    if (i >= 0 && parts.parent[i] >= 0) {
      root = root_of(parts.parent, i);
      parts.parent[i] = root;
      int n_faces = 0, n_to_et = 0;
      for_each_neighbour(box, i, [&](int j, std::uint8_t) {
        if (parts.parent[j] >= 0) return;
        ++n_faces;
        n_to_et += n_beside(box, j, values.et) > 0;
      });
      if (n_faces) atomicAdd(parts.n_faces + root, n_faces);
      if (n_to_et) atomicAdd(parts.n_to_et + root, n_to_et);
    }
    count_lanes_of(parts.n_voxels, root);
  });
}

/// counts: [0] inner voxels of enclosed parts, [1] of stray ones; zeros at the start.
FASTBTS_KERNEL void stray_core_judge_kernel(LabelBox box, CoreParts parts, int min_voxels,
                                            unsigned long long* counts) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    const int n = parts.n_voxels[i];
    if (n == 0 || n < min_voxels) continue;
    const auto voxels = static_cast<unsigned long long>(n);
    const std::int64_t n_faces = parts.n_faces[i], n_to_et = parts.n_to_et[i];
    if (is_enclosed(n_faces, n_to_et)) atomicAdd(counts, voxels);
    if (is_stray(n_faces, n_to_et)) atomicAdd(counts + 1, voxels);
  }
}

/// Replaces the parents of inner voxels by marks, if anything is to change.
FASTBTS_KERNEL void stray_core_mark_kernel(LabelBox box, CoreParts parts, int min_voxels,
                                           const unsigned long long* counts) {
  if (!strays_change(counts[0], counts[1])) return;
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    const int root = parts.parent[i];
    if (root < 0) continue;
    const bool stray = parts.n_voxels[root] >= min_voxels &&
                       is_stray<std::int64_t>(parts.n_faces[root], parts.n_to_et[root]);
    parts.parent[i] = mark_of(0, stray);
  }
}

/// Marks core that a step leads to from what was marked before this step; stray marks win.
FASTBTS_KERNEL void stray_core_spread_kernel(LabelBox box, CoreValues values, int* marks, int step,
                                             const unsigned long long* counts) {
  if (!strays_change(counts[0], counts[1])) return;
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (marks[i] >= 0 || *label_at(box, i) != values.core) continue;
    bool reached = false, stray = false;
    for_each_neighbour(box, static_cast<int>(i), [&](int j, std::uint8_t) {
      const int mark = *static_cast<volatile int*>(marks + j);  // others write marks of this step
      if (mark < 0 || mark >= mark_of(step, false)) return;
      reached = true;
      stray |= is_marked_stray(mark);
    });
    if (reached) marks[i] = mark_of(step, stray);
  }
}

/// Makes what is marked as stray oedema; counts: [2] voxels changed, zero at the start.
FASTBTS_KERNEL void stray_core_change_kernel(LabelBox box, CoreValues values, const int* marks,
                                             unsigned long long* counts) {
  const bool change = strays_change(counts[0], counts[1]);
  for_each_voxel(box, [&](int i) {
    const bool stray = i >= 0 && change && is_marked_stray(marks[i]);
    if (stray) *label_at(box, i) = values.edema;
    count_lanes_of(counts, stray ? 2 : -1);
  });
}

}  // namespace fastbts
