// The CUDA kernels behind a C interface, each launched by the SIMT emulation;
// tests/simt/emulated.py loads it. Element types: 0 float32, 1 float16, 2 bfloat16. Every function
// returns null or what went wrong.
#include "simt.h"
// The emulation first: kernels are written in its words.
#include <string>

#include "ops/blend_kernel.cuh"
#include "ops/brain_box_kernel.cuh"
#include "ops/components_kernel.cuh"
#include "ops/label_kernel.cuh"
#include "ops/normalize_kernel.cuh"
#include "ops/resample_affine_kernel.cuh"
#include "ops/resample_kernel.cuh"
#include "ops/semantic_attention_kernel.cuh"
#include "ops/semantic_bridge_kernel.cuh"
#include "ops/widen_kernel.cuh"
#include "ops/window_kernel.cuh"

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

template <typename Fn>
const char* with_type(int dtype, Fn&& fn) {
  return guarded([&] {
    if (dtype == 0) fn(float{});
    if (dtype == 1) fn(Half{});
    if (dtype == 2) fn(Bfloat16{});
  });
}

constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBfloat16};
constexpr dim3 kRowBlocks(3),
    kRowThreads(32, 2);  // as in RowLaunch the lanes of a warp share a row

template <typename T, std::size_t N>
Strided<T, N> dense(T* data, const std::int64_t* shape) {
  Strided<T, N> array{data, {}, {}};
  std::int64_t step = 1;
  for (std::size_t axis = N; axis-- > 0; step *= shape[axis]) {
    array.shape[axis] = shape[axis];
    array.strides[axis] = step;
  }
  return array;
}

// layout: shape (4), then strides in elements (4). image_type counts as DType does.
AnyStrided<4> image_of(int image_type, const void* data, const std::int64_t* layout) {
  AnyStrided<4> image{data, static_cast<DType>(image_type), {}, {}};
  std::copy_n(layout, 4, image.shape);
  std::copy_n(layout + 4, 4, image.strides);
  return image;
}

std::uint32_t n_rows_of(const std::int64_t* shape, int n_axes) {
  std::int64_t n = 1;
  for (int axis = 0; axis < n_axes; ++axis) n *= shape[axis];
  return static_cast<std::uint32_t>(n);
}

BridgeSizes bridge_sizes(const int* s) { return {s[0], s[1], s[2], s[3], s[4]}; }

// What every warp function gives, for one warp whose first `n` lanes take part; out (32, 6).
FASTBTS_KERNEL void warp_kernel(int n, int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= n) return;
  const unsigned mask = n == 32 ? kAllLanes : (1U << n) - 1;
  int* row = out + 6 * lane;
  row[0] = __shfl_sync(mask, lane * 10, 1);
  row[1] = __shfl_xor_sync(mask, lane, 1);
  row[2] = __shfl_down_sync(mask, lane, 2);
  row[3] = __shfl_up_sync(mask, lane, 1);
  row[4] = static_cast<int>(__ballot_sync(mask, lane % 3 == 0));
  row[5] = __any_sync(mask, lane == 5) + 2 * __all_sync(mask, lane < 5);
}

// Where some threads never reach a barrier, where a lane is not in its mask, and where a mask names
// one that has left.
FASTBTS_KERNEL void wrong_kernel(int kind) {
  if (kind == 0 && threadIdx.x < 16) __syncthreads();
  if (kind == 1) __shfl_sync(0xFFFF, 1, 0);
  if (kind == 2 && threadIdx.x < 16) __shfl_sync(kAllLanes, 1, 0);
}

FASTBTS_KERNEL void atomic_kernel(int* total, int* smallest) {
  atomicAdd(total, 1);
  atomicMin(smallest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

}  // namespace

extern "C" {

const char* simt_warp(unsigned seed, int n, int* out) {
  return guarded([&] { simt::launch(seed, 1, 32, 0, warp_kernel, n, out); });
}

const char* simt_wrong(unsigned seed, int kind) {
  return guarded([&] { simt::launch(seed, 1, 32, 0, wrong_kernel, kind); });
}

const char* simt_atomic(unsigned seed, int* total, int* smallest) {
  return guarded([&] { simt::launch(seed, 5, 40, 0, atomic_kernel, total, smallest); });
}

const char* simt_resample(unsigned seed, int dtype, const void* tensor, const int* s, void* out) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const ResampleSizes sizes{s[0], {s[1], s[2], s[3]}, {s[4], s[5], s[6]}};
    simt::launch(seed, 3, 64, 0, resample_kernel<T>, static_cast<const T*>(tensor), sizes,
                 static_cast<T*>(out));
  });
}

// settings: the matrix (12), then the value outside. Both types count as DType does.
const char* simt_resample_affine(unsigned seed, int image_type, const void* tensor,
                                 const std::int64_t* layout, const double* settings_of, int nearest,
                                 int out_type, void* out, const std::int64_t* out_layout) {
  return guarded([&] {
    ResampleAffineSettings settings{{}, nearest != 0, static_cast<float>(settings_of[12])};
    std::copy_n(settings_of, 12, &settings.map[0][0]);
    const AnyStrided<4> image = image_of(out_type, out, out_layout);
    AnyStrided<4, void> target{out, image.dtype, {}, {}};
    std::copy_n(image.shape, 4, target.shape);
    std::copy_n(image.strides, 4, target.strides);
    simt::launch(seed, kRowBlocks, kRowThreads, 0, resample_affine_kernel,
                 image_of(image_type, tensor, layout), settings, target,
                 static_cast<std::uint32_t>(target.shape[1] * target.shape[2]));
  });
}

const char* simt_project(unsigned seed, int dtype, const void* tensor, const int* s, void* z,
                         void* y, void* x) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto* in = static_cast<const T*>(tensor);
    simt::launch(seed, 3, 64, 0, project_kernel<T, true>, in, bridge_sizes(s), static_cast<T*>(z));
    simt::launch(seed, 3, 64, 0, project_kernel<T, false>, in, bridge_sizes(s), static_cast<T*>(y));
    simt::launch(seed, 3, 64, 0, project_rows_kernel<T>, in, bridge_sizes(s), static_cast<T*>(x));
  });
}

// n_missing: how many bytes of shared memory the launch forgets to ask for.
const char* simt_plane(unsigned seed, int dtype, const void* plane, const float* conv,
                       const float* bias, const float* view, const float* expand, int n_b,
                       const int* s, void* out, int n_threads, int n_missing) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const PlaneSizes sizes{s[0], s[1], s[2], s[3]};
    const dim3 grid(static_cast<unsigned>((s[2] * s[3] + kWarp - 1) / kWarp),
                    static_cast<unsigned>(n_b));
    const auto bytes = static_cast<std::size_t>(s[0] * kWarp) * sizeof(float) -
                       static_cast<std::size_t>(n_missing);
    simt::launch(seed, grid, static_cast<unsigned>(n_threads), bytes, plane_kernel<T>,
                 static_cast<const T*>(plane), conv, bias, view, expand, sizes,
                 static_cast<T*>(out));
  });
}

const char* simt_lift(unsigned seed, int dtype, const void* z, const void* y, const void* x,
                      const int* s, int add, void* out) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    simt::launch(seed, 3, 64, 0, lift_kernel<T>, static_cast<const T*>(z), static_cast<const T*>(y),
                 static_cast<const T*>(x), bridge_sizes(s), add != 0, static_cast<T*>(out));
  });
}

// s: C, C', J, K, below (3), maps (3), cases.
const char* simt_attention(unsigned seed, int dtype, const void* skip, const void* encoded,
                           const void* decoded, const void* similarity, const float* w_x,
                           const float* bias, const float* w_g, const float* w_s, const float* w_a,
                           float strength, int on_device, const int* s, std::int64_t out_step,
                           void* out) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const AttentionSizes sizes{s[0],    s[1], s[2], s[3], {s[4], s[5], s[6]}, {s[7], s[8], s[9]},
                               out_step};
    const AttentionPointers<T> pointers{static_cast<const T*>(skip),
                                        static_cast<const T*>(encoded),
                                        static_cast<const T*>(decoded),
                                        static_cast<const T*>(similarity),
                                        w_x,
                                        bias,
                                        w_g,
                                        w_s,
                                        w_a,
                                        on_device ? std::nanf("") : strength,
                                        static_cast<T*>(out),
                                        on_device ? &strength : nullptr};
    const dim3 grid(static_cast<unsigned>((s[4] * s[5] * s[6] + 63) / 64),
                    static_cast<unsigned>(s[10]));
    simt::launch(seed, grid, 64, attention_shared_bytes(sizes), attention_kernel<T>, pointers,
                 sizes);
  });
}

// n: elements of each of the parts of source and target, which lie one after another.
const char* simt_widen(unsigned seed, int dtype, const void* source, const int* n, float* target) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    WidenArgs args{{}, {}};
    const T* from = static_cast<const T*>(source);
    for (int i = 0; i < kWidenParts; from += n[i], target += n[i], ++i)
      args.parts[i] = {from, target, n[i]};
    simt::launch(seed, dim3(2, kWidenParts), 32, 0, widen_kernel<T>, args);
  });
}

// found (7 + 2M): zeros.
const char* simt_brain_box(unsigned seed, int image_type, const void* data,
                           const std::int64_t* layout, unsigned long long* found) {
  return guarded([&] {
    const AnyStrided<4> volume = image_of(image_type, data, layout);
    const std::size_t n_shared = 2 * static_cast<std::size_t>(layout[0]) * sizeof(unsigned);
    simt::launch(seed, kRowBlocks, kRowThreads, n_shared, brain_box_kernel, volume, found,
                 n_rows_of(layout + 1, 2));
    simt::launch(seed, 1, 1, 0, brain_box_bounds_kernel, volume, found);
  });
}

// The kernels in the order of normalize_cuda; data and layout are those of the box; size: of the
// tensor.
const char* simt_normalize(unsigned seed, int image_type, const void* data,
                           const std::int64_t* layout, const double* percentiles, int dtype,
                           void* out, const std::int64_t* size, double* stats,
                           std::uint8_t* memory) {
  return guarded([&] {
    const AnyStrided<4> box = image_of(image_type, data, layout);
    const std::int64_t n_m = layout[0], n_voxels = layout[1] * layout[2] * layout[3];
    const std::uint32_t n_rows = n_rows_of(layout + 1, 2);
    const auto n = static_cast<unsigned>(n_m);
    const NormalizeScratch scratch(memory, n_m, n_voxels);
    std::memset(memory, 0, scratch.n_zeroed);
    simt::launch(seed, kRowBlocks, kRowThreads, 0, mark_brain_kernel, box, scratch, n_rows);
    for (int digit = kDigits - 1; digit >= 0; --digit) {
      simt::launch(seed, {3, n}, kRowThreads, 0, histogram_kernel, box, scratch, digit, n_rows);
      simt::launch(seed, 1, 32, 0, select_kernel, scratch, digit, percentiles[0], percentiles[1],
                   static_cast<int>(2 * n));
    }
    const std::size_t n_shared = kRowThreads.volume() * sizeof(double);
    for (const int power : {1, 2}) {
      simt::launch(seed, {kSumBlocks, n}, kRowThreads, n_shared, moment_kernel, box, scratch, stats,
                   power, n_rows);
      simt::launch(seed, 1, 32, 0, stats_kernel, scratch, stats, power, static_cast<int>(n));
    }
    const auto tensor = dense<char, 4>(nullptr, size);
    AnyStrided<4, void> target{out, kFloats[dtype], {}, {}};
    std::copy_n(tensor.shape, 4, target.shape);
    std::copy_n(tensor.strides, 4, target.strides);
    const Corner corner{(size[1] - layout[1]) / 2, (size[2] - layout[2]) / 2,
                        (size[3] - layout[3]) / 2};
    simt::launch(seed, kRowBlocks, kRowThreads, 0, scale_kernel, box, scratch.mask, stats, corner,
                 target, n_rows_of(size, 3));
  });
}

const char* simt_window(unsigned seed, int dtype, const void* tensor, const std::int64_t* shape,
                        const std::int32_t* origins, int out_type, void* out,
                        const std::int64_t* size) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::int64_t corners[] = {size[0], 3};
    const Strided<float, 5> dense_out = dense<float, 5>(nullptr, size);
    AnyStrided<5, void> target{out, kFloats[out_type], {}, {}};
    std::copy_n(dense_out.shape, 5, target.shape);
    std::copy_n(dense_out.strides, 5, target.strides);
    simt::launch(seed, kRowBlocks, kRowThreads, 0, window_kernel<T>,
                 dense<const T, 4>(static_cast<const T*>(tensor), shape),
                 dense<const std::int32_t, 2>(origins, corners), target, n_rows_of(size, 4));
  });
}

const char* simt_blend(unsigned seed, int dtype, const void* logits, const std::int64_t* size,
                       const std::int32_t* origins, const float* wd, const float* wh,
                       const float* ww, float* total, const std::int64_t* shape) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::int64_t corners[] = {size[0], 3}, d[] = {size[0], size[2]}, h[] = {size[0], size[3]},
                       w[] = {size[0], size[4]};
    const BlendWeights weights{dense<const float, 2>(wd, d), dense<const float, 2>(wh, h),
                               dense<const float, 2>(ww, w)};
    simt::launch(seed, kRowBlocks, kRowThreads, 0, blend_kernel<T>,
                 dense<const T, 5>(static_cast<const T*>(logits), size),
                 dense<const std::int32_t, 2>(origins, corners), weights,
                 dense<float, 4>(total, shape), n_rows_of(shape, 3));
  });
}

// logits: of the box; labels: its first voxel, and their shape (3) and strides (3); counts (3):
// zeros.
const char* simt_label(unsigned seed, int dtype, const void* logits, const std::int64_t* shape,
                       const float* least, std::uint8_t* labels, const std::int64_t* layout,
                       unsigned long long* counts) {
  return with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    Strided<std::uint8_t, 3> target{labels, {}, {}};
    std::copy_n(layout, 3, target.shape);
    std::copy_n(layout + 3, 3, target.strides);
    simt::launch(seed, kRowBlocks, kRowThreads, 0, label_kernel<T>,
                 dense<const T, 4>(static_cast<const T*>(logits), shape),
                 LabelRule{least[0], least[1], least[2], 2, 1, 4}, target, counts,
                 n_rows_of(layout, 2));
  });
}

// labels: first voxel of the box; counts (258) zeros; scratch (2, voxels of the box).
const char* simt_components(unsigned seed, std::uint8_t* labels, const int* size,
                            const std::int64_t* steps, int min_voxels, int* scratch,
                            unsigned long long* counts) {
  return guarded([&] {
    const LabelBox box{labels, {size[0], size[1], size[2]}, {steps[0], steps[1], steps[2]}};
    int *parent = scratch, *n_in_part = scratch + size[0] * size[1] * size[2];
    simt::launch(seed, 4, 64, 0, components_begin_kernel, box, parent, n_in_part);
    simt::launch(seed, 4, 64, 0, components_unite_kernel, box, parent);
    simt::launch(seed, 4, 64, 0, components_count_kernel, box, parent, n_in_part);
    simt::launch(seed, 4, 64, 0, components_remove_kernel, box, parent, n_in_part, min_voxels,
                 counts);
  });
}

}  // extern "C"
