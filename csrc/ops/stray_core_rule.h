#pragma once

/// The rule of `stray_core`, for CPU and CUDA: in integers, so that both decide alike.
#ifdef __CUDACC__
#define FASTBTS_BOTH __host__ __device__
#else
#define FASTBTS_BOTH
#endif

namespace fastbts {

/// Steps by faces from the inner voxels of a part within which core belongs to it.
constexpr int kCoreReach = 3;

template <typename Int>
FASTBTS_BOTH constexpr bool is_stray(Int n_faces, Int n_to_et) {
  return 4 * n_to_et < n_faces;
}

template <typename Int>
FASTBTS_BOTH constexpr bool is_enclosed(Int n_faces, Int n_to_et) {
  return 10 * n_to_et >= 7 * n_faces;
}

/// Whether the stray parts change, given the inner voxels of all enclosed and all stray ones.
template <typename Int>
FASTBTS_BOTH constexpr bool strays_change(Int n_enclosed, Int n_stray) {
  return n_stray > 0 && 20 * n_enclosed >= n_stray;
}

}  // namespace fastbts
