#pragma once

#include "core/cuda/kernel.h"

/// Tensor cores and asynchronous copies, as kernels use them. One source for Turing to Blackwell:
/// what Turing lacks is made of what it has. The SIMT emulation of the tests has an `mma.h` of its
/// own. Layouts of fragments: PTX ISA 8.7, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".
namespace fastbts {

/// Two float16 in a register, the first in its lower half, and the way back.
FASTBTS_DEVICE std::uint32_t packed(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
FASTBTS_DEVICE void unpack(std::uint32_t pair, float& first, float& second) {
  const float2 values = __half22float2(*reinterpret_cast<const __half2*>(&pair));
  first = values.x;
  second = values.y;
}

/// Loads four 8 x 8 matrices of 16-bit elements from shared memory, r[i] of each lane: two adjacent
/// elements of matrix i, row lane / 4, columns 2 (lane % 4) on. Lane l gives the address of row
/// l % 8 of matrix l / 8, a multiple of 16 bytes. All lanes must call it.
FASTBTS_DEVICE void load_matrices(const Half* row, std::uint32_t (&r)[4]) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// c += a b, with a 16 x 16, b 16 x 8 in float16 and c 16 x 8 in float32. All lanes must call it.
FASTBTS_DEVICE void multiply_add(const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                 float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const std::uint32_t b[2] = {b0, b1};
  for (int half = 0; half < 2; ++half) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}

/// Copies 16 bytes from global to shared memory; both addresses are multiples of 16. The bytes may
/// be read after `wait_copies`, and by other threads after a barrier too.
FASTBTS_DEVICE void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(address), "l"(global)
               : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

/// Ends a group of this thread's copies; a group may be empty.
FASTBTS_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

/// Waits until at most kGroups groups of this thread's copies, the latest ones, are unfinished.
template <int kGroups>
FASTBTS_DEVICE void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(kGroups) : "memory");
#endif
}

}  // namespace fastbts
