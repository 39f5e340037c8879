#pragma once

#include <cstdint>

#include "core/cuda/kernel.h"
#include "core/cuda/warp.h"

/// What the kernels that find connected parts of labels share.
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

}  // namespace fastbts
