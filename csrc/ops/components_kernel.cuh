#pragma once

#include "ops/label_parts.cuh"

/// Memory traffic (estimate) of 144 x 176 x 144 voxels: labels 3 times, parents 5 times, counts of
/// parts twice: 113 MB, 38 us at 3.0 TB/s, 26 us at 4.3 TB/s; expected 100 and 80 us. One memset,
/// four launches.
namespace fastbts {

/// parent (voxels of the box) int32: each non-zero voxel is a part of its own, others are -1.
/// n_in_part: zeros.
FASTBTS_KERNEL void components_begin_kernel(LabelBox box, int* parent, int* n_in_part) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    parent[i] = *label_at(box, i) ? static_cast<int>(i) : -1;
    n_in_part[i] = 0;
  }
}

/// Unites each voxel with its 13 neighbours that come before it: whatever the order, a part's root
/// is its first voxel.
FASTBTS_KERNEL void components_unite_kernel(LabelBox box, int* parent) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (parent[i] < 0) continue;
    const Voxel at(box, i);
    for (int k = 0; k < 13; ++k) {
      const int z = at.d + k / 9 - 1, y = at.h + k / 3 % 3 - 1, x = at.w + k % 3 - 1;
      if (z < 0 || y < 0 || y >= box.size[1] || x < 0 || x >= box.size[2]) continue;
      const int other = (z * box.size[1] + y) * box.size[2] + x;
      if (parent[other] >= 0) unite(parent, static_cast<int>(i), other);
    }
  }
}

/// Makes the root the parent of each voxel, and counts the voxels of each part at its root, in
/// n_in_part. Others that follow parents meanwhile find an older ancestor or the root.
FASTBTS_KERNEL void components_count_kernel(LabelBox box, int* parent, int* n_in_part) {
  for_each_voxel(box, [&](int i) {
    int root = -1;
    if (i >= 0 && parent[i] >= 0) {
      root = root_of(parent, i);
      parent[i] = root;
    }
    count_lanes_of(n_in_part, root);
  });
}

/// Removes small parts; parent: the root of each voxel. counts: [0] parts before, [1] after,
/// [2 + label] voxels removed; zeros at the start.
FASTBTS_KERNEL void components_remove_kernel(LabelBox box, const int* parent, const int* n_in_part,
                                             int min_voxels, unsigned long long* counts) {
  for_each_voxel(box, [&](int i) {
    const int root = i < 0 ? -1 : parent[i];
    const bool small = root >= 0 && n_in_part[root] < min_voxels;
    const bool is_root = root >= 0 && root == i;
    count_lanes_of(counts, is_root ? 0 : -1);
    count_lanes_of(counts, is_root && !small ? 1 : -1);
    std::uint8_t* label = small ? label_at(box, i) : nullptr;
    count_lanes_of(counts + 2, small ? *label : -1);
    if (small) *label = 0;
  });
}

}  // namespace fastbts
