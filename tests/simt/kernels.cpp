/// Kernels that show how the SIMT emulation works, and those parts of the product's that
/// `fastbts.ops` does not reach; behind a C interface for tests/simt/emulated.py. Element types: 0
/// float32, 1 float16, 2 bfloat16. Every function returns null or what went wrong.
#include "simt.h"
// The emulation first: it defines the names that kernels use.
#include <string>

#include "core/cuda/mma.h"
#include "core/cuda/pack.h"
#include "ops/semantic_attention.h"
#include "ops/widen.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using namespace fastbts;

template <typename Fn>
const char* guarded(Fn&& fn) {
  static thread_local std::string message;
  try {
    fn();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBfloat16};

/// What every warp function gives, for one warp whose first `n` lanes take part; out (32, 6).
FASTBTS_KERNEL void warp_kernel(int n, int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= n) return;
  const unsigned mask = n == 32 ? 0xFFFFFFFF : (1U << n) - 1;
  int* row = out + 6 * lane;
  row[0] = __shfl_sync(mask, lane * 10, 1);
  row[1] = __shfl_xor_sync(mask, lane, 1);
  row[2] = __shfl_down_sync(mask, lane, 2);
  row[3] = __shfl_up_sync(mask, lane, 1);
  row[4] = static_cast<int>(__ballot_sync(mask, lane % 3 == 0));
  row[5] = __any_sync(mask, lane == 5) + 2 * __all_sync(mask, lane < 5);
}

/// Some threads never reach a barrier; a lane is not in its mask; a mask names one that has left.
FASTBTS_KERNEL void wrong_kernel(int kind) {
  if (kind == 0 && threadIdx.x < 16) __syncthreads();
  if (kind == 1) __shfl_sync(0xFFFF, 1, 0);
  if (kind == 2 && threadIdx.x < 16) __shfl_sync(0xFFFFFFFF, 1, 0);
}

FASTBTS_KERNEL void atomic_kernel(int* total, int* smallest) {
  atomicAdd(total, 1);
  atomicMin(smallest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

FASTBTS_KERNEL void empty_kernel() {}

/// Two groups of asynchronous copies of one warp, (2, 32, 4); waits for the first of them, or for
/// both, or for none.
FASTBTS_KERNEL void copy_kernel(const float* source, int n_waits, float* out) {
  FASTBTS_DYNAMIC_SHARED(float, shared);
  const int lane = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 2; ++group) {
    const int at = (group * 32 + lane) * 4;
    copy_async(shared + at, source + at);
    commit_copies();
  }
  if (n_waits == 1) wait_copies<1>();
  if (n_waits == 2) wait_copies<0>();
  __syncthreads();
  for (int i = lane; i < 256; i += 32) out[i] = shared[i];
}

/// Copies four numbers to the next four.
FASTBTS_KERNEL void pack_kernel(float* values) {
  store_pack(values + 4, load_pack<Pack<float, 4>>(values));
}

/// A dense array of one case, one channel and these voxels.
template <typename Void>
AnyView<5, Void> volume_of(Void* data, DType dtype, std::int64_t d, std::int64_t h,
                           std::int64_t w) {
  return {data, dtype, {1, 1, d, h, w}, {d * h * w, d * h * w, h * w, w, 1}, {true, 0}};
}

}  // namespace

/// For the launches that follow: seed, whether barriers wait, bytes of shared memory withheld, and
/// the stream that they must be queued on.
EXPORTED void simt_plan(unsigned seed, int has_barriers, std::size_t n_withheld, void* stream) {
  simt::plan = {seed, has_barriers != 0, n_withheld};
  simt::only_stream = static_cast<cudaStream_t>(stream);
}

/// Connects a machine, or none; forgets the kernels of the one before.
EXPORTED void simt_connect(simt::Machine machine) {
  simt::machine = machine;
  simt::kernels.clear();
}

/// Runs a kernel that the machine was given.
EXPORTED const char* simt_run(std::int64_t number) {
  return guarded([&] {
    simt::Work kernel;
    {
      const std::lock_guard<std::mutex> hold(simt::kernels_lock);
      kernel = simt::kernels.at(static_cast<std::size_t>(number));
    }
    kernel();
  });
}

EXPORTED const char* simt_warp(unsigned seed, int n, int* out) {
  return guarded([&] { simt::launch(seed, 1, 32, 0, warp_kernel, n, out); });
}

EXPORTED const char* simt_wrong(unsigned seed, int kind) {
  return guarded([&] { simt::launch(seed, 1, 32, 0, wrong_kernel, kind); });
}

EXPORTED const char* simt_atomic(unsigned seed, int* total, int* smallest) {
  return guarded([&] { simt::launch(seed, 5, 40, 0, atomic_kernel, total, smallest); });
}

EXPORTED const char* simt_pack(float* values) {
  return guarded([&] { simt::launch(0, 1, 1, 0, pack_kernel, values); });
}

EXPORTED const char* simt_copy(unsigned seed, const float* source, int n_waits, float* out) {
  return guarded(
      [&] { simt::launch(seed, 1, 32, 256 * sizeof(float), copy_kernel, source, n_waits, out); });
}

EXPORTED const char* simt_launch(unsigned n_threads, std::size_t n_shared) {
  return guarded([&] { simt::launch(0, 1, n_threads, n_shared, empty_kernel); });
}

/// n: elements of each of the parts of source and target, stored one after another.
EXPORTED const char* simt_widen(int dtype, const char* source, const int* n, float* target) {
  return guarded([&] {
    WidenArgs args{{}, kFloats[dtype]};
    for (int i = 0; i < kWidenParts; ++i) {
      args.parts[i] = {source, target, n[i]};
      source += n[i] * size_of(args.dtype);
      target += n[i];
    }
    widen_cuda(args, {});
  });
}

/// Attention with one channel of each kind and all weights 1, whose strength is on the device;
/// skip and out are twice as large as the other volumes, whose size is n.
EXPORTED const char* simt_attention(int dtype, const void* skip, const void* encoded,
                                    const void* similarity, const std::int64_t* n,
                                    const float* strength, void* out) {
  return guarded([&] {
    const DType type = kFloats[dtype];
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const View<const float, 2> matrix{ones, {1, 1}, {1, 1}, {true, 0}};
    const auto below = volume_of(encoded, type, n[0], n[1], n[2]);
    semantic_attention_cuda({volume_of(skip, type, 2 * n[0], 2 * n[1], 2 * n[2]),
                             below,
                             below,
                             volume_of(similarity, type, n[0], n[1], n[2]),
                             matrix,
                             {ones, {1}, {1}, {true, 0}},
                             matrix,
                             matrix,
                             {ones, {1, 2, 2, 2}, {8, 4, 2, 1}, {true, 0}},
                             std::nanf(""),
                             volume_of(out, type, 2 * n[0], 2 * n[1], 2 * n[2]),
                             strength},
                            {});
  });
}
