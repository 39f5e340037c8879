#pragma once

#include "core/cuda/kernel.h"

namespace fastbts {

/// The box of labels: its first voxel, its size, its strides.
struct LabelBox {
  std::uint8_t* labels;
  int size[3];
  std::int64_t steps[3];
};

FASTBTS_DEVICE std::int64_t n_voxels(const LabelBox& box) {
  return static_cast<std::int64_t>(box.size[0]) * box.size[1] * box.size[2];
}

FASTBTS_DEVICE std::uint8_t* label_at(const LabelBox& box, std::int64_t i) {
  const std::int64_t w = i % box.size[2], h = i / box.size[2] % box.size[1],
                     d = i / box.size[2] / box.size[1];
  return box.labels + d * box.steps[0] + h * box.steps[1] + w * box.steps[2];
}

/// parent (voxels of the box) int32: each non-zero voxel is a part of its own, others are -1.
/// n_in_part: zeros.
FASTBTS_KERNEL void components_begin_kernel(LabelBox box, int* parent, int* n_in_part) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    parent[i] = *label_at(box, i) ? static_cast<int>(i) : -1;
    n_in_part[i] = 0;
  }
}

/// Parents only get smaller, so a value read while others write is an older ancestor, never a wrong
/// one.
FASTBTS_DEVICE int root_of(const int* parent, int i) {
  const volatile int* now = parent;
  while (now[i] != i) i = now[i];
  return i;
}

FASTBTS_DEVICE void unite(int* parent, int a, int b) {
  for (;;) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a == b) return;
    const int low = a < b ? a : b, high = a < b ? b : a;
    const int before = atomicMin(parent + high, low);
    if (before == high) return;  // it was still a root
    a = before;                  // another thread was faster: its parent and ours belong together
    b = low;
  }
}

/// Unites each voxel with its 13 neighbours that come before it: whatever the order, a part's root
/// is its first voxel.
FASTBTS_KERNEL void components_unite_kernel(LabelBox box, int* parent) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (parent[i] < 0) continue;
    const int w = static_cast<int>(i % box.size[2]),
              h = static_cast<int>(i / box.size[2] % box.size[1]);
    const int d = static_cast<int>(i / box.size[2] / box.size[1]);
    for (int k = 0; k < 13; ++k) {
      const int z = d + k / 9 - 1, y = h + k / 3 % 3 - 1, x = w + k % 3 - 1;
      if (z < 0 || y < 0 || y >= box.size[1] || x < 0 || x >= box.size[2]) continue;
      const int other = (z * box.size[1] + y) * box.size[2] + x;
      if (parent[other] >= 0) unite(parent, static_cast<int>(i), other);
    }
  }
}

/// Counts the voxels of each part at its root, in n_in_part.
FASTBTS_KERNEL void components_count_kernel(LabelBox box, const int* parent, int* n_in_part) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (parent[i] >= 0) atomicAdd(n_in_part + root_of(parent, static_cast<int>(i)), 1);
  }
}

/// Removes small parts. counts: [0] parts before, [1] after, [2 + label] voxels removed; zeros at
/// the start.
FASTBTS_KERNEL void components_remove_kernel(LabelBox box, const int* parent, const int* n_in_part,
                                             int min_voxels, unsigned long long* counts) {
  for (std::int64_t i = thread_index(); i < n_voxels(box); i += n_threads_of_grid()) {
    if (parent[i] < 0) continue;
    const int root = root_of(parent, static_cast<int>(i));
    const bool small = n_in_part[root] < min_voxels;
    if (root == i) atomicAdd(counts, 1ULL);
    if (root == i && !small) atomicAdd(counts + 1, 1ULL);
    if (!small) continue;
    std::uint8_t* label = label_at(box, i);
    atomicAdd(counts + 2 + *label, 1ULL);
    *label = 0;
  }
}

}  // namespace fastbts
