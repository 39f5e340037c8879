#pragma once

#include "core/cuda/kernel.h"
#include "core/cuda/warp.h"

/// Memory traffic (estimate) of 144 x 176 x 144 voxels: labels 3 times, parents 5 times, counts of
/// parts twice: 113 MB, 38 us at 3.0 TB/s, 26 us at 4.3 TB/s; expected 100 and 80 us. One memset,
/// four launches.
namespace fastbts {

/// The box of labels: its first voxel, its size, its strides; axes in the order of memory.
struct LabelBox {
  std::uint8_t* labels;
  int size[3];
  std::int64_t steps[3];
};

FASTBTS_DEVICE std::int64_t n_voxels(const LabelBox& box) {
  return static_cast<std::int64_t>(box.size[0]) * box.size[1] * box.size[2];
}

/// Indices of voxel i, of fewer than 2^31.
struct Voxel {
  int d, h, w;

  FASTBTS_DEVICE Voxel(const LabelBox& box, std::int64_t i) {
    const auto n_h = static_cast<unsigned>(box.size[1]), n_w = static_cast<unsigned>(box.size[2]);
    const unsigned row = static_cast<unsigned>(i) / n_w, slice = row / n_h;
    d = static_cast<int>(slice);
    h = static_cast<int>(row - slice * n_h);
    w = static_cast<int>(static_cast<unsigned>(i) - row * n_w);
  }
};

FASTBTS_DEVICE std::uint8_t* label_at(const LabelBox& box, std::int64_t i) {
  const Voxel at(box, i);
  return box.labels + at.d * box.steps[0] + at.h * box.steps[1] + at.w * box.steps[2];
}

/// Adds one to counts[key] for each lane of a warp whose key is not negative, lanes of the same key
/// at once; all lanes must call it.
template <typename T>
FASTBTS_DEVICE void count_lanes_of(T* counts, int key) {
  unsigned left = __ballot_sync(kAllLanes, key >= 0);
  while (left) {
    const int first = __ffs(static_cast<int>(left)) - 1;
    const unsigned same = __ballot_sync(kAllLanes, key == __shfl_sync(kAllLanes, key, first));
    if (static_cast<int>(threadIdx.x % kWarp) == first)
      atomicAdd(counts + key, static_cast<T>(__popc(same)));
    left &= ~same;
  }
}

/// Calls fn(i) for this thread's voxels; where there are none left, fn(-1) as long as other threads
/// of its warp have some.
template <typename Fn>
FASTBTS_DEVICE void for_each_voxel(const LabelBox& box, Fn fn) {
  const std::int64_t n = n_voxels(box), lane = threadIdx.x % kWarp;
  for (std::int64_t i = thread_index(); i - lane < n; i += n_threads_of_grid())
    fn(static_cast<int>(i < n ? i : -1));
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
