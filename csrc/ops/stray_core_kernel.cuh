#pragma once

#include "ops/label_parts.cuh"
#include "ops/stray_core_rule.h"

/// Memory traffic (estimate) of 144 x 176 x 144 voxels: labels 4 times, parents 6 times, counts of
/// parts 4 times: 160 MB, 53 us at 3.0 TB/s, 37 us at 4.3 TB/s; expected 110 and 90 us. One memset,
/// five launches.
namespace fastbts {

/// Values of oedema, necrotic core and enhancing tumour.
struct CoreValues {
  std::uint8_t edema, core, et;
};

/// Scratch of one int32 for each voxel of the box and each of: the parent in its part; at the root,
/// voxels of the part, its faces to other voxels, and those to enhancing tumour.
struct CoreParts {
  int *parent, *n_voxels, *n_faces, *n_to_et;
};

/// Each voxel of core is a part of its own, others are -1.
FASTBTS_KERNEL void stray_core_begin_kernel(LabelBox box, CoreValues values, CoreParts parts) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    parts.parent[i] = *label_at(box, i) == values.core ? static_cast<int>(i) : -1;
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

/// Calls fn(label) for the six neighbours of a voxel; 0 for those outside.
template <typename Fn>
FASTBTS_DEVICE void for_each_neighbour(const LabelBox& box, const Voxel& at, Fn fn) {
  const int index[3] = {at.d, at.h, at.w};
  const std::uint8_t* label =
      box.labels + at.d * box.steps[0] + at.h * box.steps[1] + at.w * box.steps[2];
  for (int axis = 0; axis < 3; ++axis) {
    fn(index[axis] > 0 ? label[-box.steps[axis]] : std::uint8_t{0});
    fn(index[axis] + 1 < box.size[axis] ? label[box.steps[axis]] : std::uint8_t{0});
  }
}

/// Makes the root the parent of each voxel, and counts voxels and faces of each part at its root.
FASTBTS_KERNEL void stray_core_count_kernel(LabelBox box, CoreValues values, CoreParts parts) {
  for_each_voxel(box, [&](int i) {
    int root = -1;
    if (i >= 0 && parts.parent[i] >= 0) {
      root = root_of(parts.parent, i);
      parts.parent[i] = root;
      int n_faces = 0, n_to_et = 0;
      for_each_neighbour(box, Voxel(box, i), [&](std::uint8_t label) {
        n_faces += label != values.core;
        n_to_et += label == values.et;
      });
      if (n_faces) atomicAdd(parts.n_faces + root, n_faces);
      if (n_to_et) atomicAdd(parts.n_to_et + root, n_to_et);
    }
    count_lanes_of(parts.n_voxels, root);
  });
}

/// counts: [0] voxels of enclosed parts, [1] of stray ones; zeros at the start.
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

/// Changes the stray parts if the enclosed ones are large enough; counts: [2] voxels changed, zero
/// at the start.
FASTBTS_KERNEL void stray_core_change_kernel(LabelBox box, CoreValues values, CoreParts parts,
                                             int min_voxels, unsigned long long* counts) {
  const bool change = strays_change(counts[0], counts[1]);
  for_each_voxel(box, [&](int i) {
    const int root = i < 0 || !change ? -1 : parts.parent[i];
    const bool stray = root >= 0 && parts.n_voxels[root] >= min_voxels &&
                       is_stray<std::int64_t>(parts.n_faces[root], parts.n_to_et[root]);
    if (stray) *label_at(box, i) = values.edema;
    count_lanes_of(counts, stray ? 2 : -1);
  });
}

}  // namespace fastbts
