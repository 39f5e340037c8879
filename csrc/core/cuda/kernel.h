#pragma once

/// The language of kernel files (`*_kernel.cuh`): CUDA under nvcc; C++ under the SIMT emulation of
/// the tests, whose simt.h defines the same names (and threadIdx, __syncthreads, __shfl_*_sync,
/// ...) for a host compiler.
#ifdef FASTBTS_SIMT
#include "simt.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define FASTBTS_KERNEL __global__
#define FASTBTS_DEVICE __device__ __forceinline__
#define FASTBTS_SHARED __shared__
/// Threads of a block, and the blocks that must fit on a multiprocessor: so many registers
/// a thread.
#define FASTBTS_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
/// The emulation throws where an address is no multiple of n_bytes: on a GPU such an access ends
/// all work of the process there.
#define FASTBTS_EXPECT_ALIGNED(address, n_bytes)
/// Declares `T* name`, the dynamic shared memory of the launch; one declaration for kernels of all
/// types.
#define FASTBTS_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char fastbts_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(fastbts_dynamic_shared)

namespace fastbts {
using Half = __half;
using Bfloat16 = __nv_bfloat16;
}  // namespace fastbts
#endif

#include <cstdint>

namespace fastbts {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFF;

/// Conversions of network tensors; sums are float32 whatever their elements are.
template <typename T>
FASTBTS_DEVICE float to_float(T value) {
  return static_cast<float>(value);
}
template <typename T>
FASTBTS_DEVICE T from_float(float value) {
  return static_cast<T>(value);
}

/// Index of this thread in a one-dimensional grid, and the number of its threads.
FASTBTS_DEVICE std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
FASTBTS_DEVICE std::int64_t n_threads_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace fastbts
