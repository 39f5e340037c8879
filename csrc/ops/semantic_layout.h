#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/array/dense.h"
#include "core/array/error.h"

/// Layouts of tensors (B, C, D, H, W) that the semantic ops take on a CUDA device: dense, or
/// channels-last, which is (B, D, H, W, pitch) in memory with pitch >= C. Either way there may be
/// gaps between cases.
namespace fastbts {

/// Whether the axes after the first have these steps; those of one entry may have any.
template <typename AView>
bool has_steps(const AView& view, const Shape<4>& steps) {
  for (std::size_t axis = 1; axis < 5; ++axis)
    if (view.shape[axis] > 1 && view.strides[axis] != steps[axis - 1]) return false;
  return true;
}

template <typename AView>
bool is_dense(const AView& view) {
  const Shape<5> steps = dense_strides(view.shape);
  return n_elements(view.shape) == 0 || has_steps(view, {steps[1], steps[2], steps[3], steps[4]});
}

/// Elements from one voxel of a channels-last tensor to the next.
template <typename AView>
std::int64_t pitch_of(const AView& view) {
  for (std::size_t axis = 4; axis > 1; --axis)
    if (view.shape[axis] > 1) return view.strides[axis];
  return view.shape[1];
}

template <typename AView>
bool is_channels_last(const AView& view) {
  const std::int64_t pitch = pitch_of(view), row = view.shape[4] * pitch;
  return n_elements(view.shape) == 0 ||
         (pitch >= view.shape[1] && has_steps(view, {1, view.shape[3] * row, row, pitch}));
}

/// Throws unless the tensor has one of the layouts.
template <typename AView>
void require_layout(const AView& view, const char* name) {
  require<InputError>(is_dense(view) || is_channels_last(view), name,
                      ": expected a contiguous or channels-last array on a CUDA device, got ",
                      "strides ", view.strides, " of shape ", view.shape);
}

/// Whether the tensors are channels-last; throws unless they have one layout. Tensors of one voxel
/// or one channel have both: `padded` says that channels are written beyond the last one.
template <typename... Views>
bool all_channels_last(const char* names, bool padded, const Views&... views) {
  const bool dense = (is_dense(views) && ...), last = (is_channels_last(views) && ...);
  require<InputError>(dense || last, names,
                      ": expected all to be contiguous or all to be channels-last");
  return last && (padded || !dense);
}

/// Elements from one channel to the next, and from one voxel to the next.
template <typename AView>
std::int64_t channel_step(const AView& view, bool channels_last) {
  return channels_last ? 1 : view.shape[2] * view.shape[3] * view.shape[4];
}
template <typename AView>
std::int64_t voxel_step(const AView& view, bool channels_last) {
  return channels_last ? pitch_of(view) : 1;
}

/// Elements between the first of a case and its end.
template <typename AView>
std::int64_t n_in_case(const AView& view, bool channels_last) {
  return channel_step(view, false) * (channels_last ? pitch_of(view) : view.shape[1]);
}

/// Kernels count the elements of a case in 32 bits.
inline void require_index(std::int64_t n, const char* op) {
  require<OptionsError>(n <= std::numeric_limits<std::int32_t>::max(), op,
                        ": expected fewer than 2^31 elements per case on a CUDA device, got ", n,
                        "; cut the volume into windows");
}

/// Kernels take the shared memory of a block that every GPU has.
inline void require_shared(std::size_t n_bytes, const char* op) {
  constexpr std::size_t kMostShared = 48 * 1024;
  require<OptionsError>(n_bytes <= kMostShared, op, ": the channels need ", n_bytes,
                        " bytes of a block's shared memory, expected at most ", kMostShared,
                        "; use fewer channels, or the CPU");
}

/// Whether tensors may be read in groups of n elements: their first element, and their steps.
template <typename... Views>
bool in_groups_of(std::int64_t n, const Views&... views) {
  const auto fits = [n](const auto& view) {
    const auto address = reinterpret_cast<std::uintptr_t>(view.data);
    return address % static_cast<std::uintptr_t>(n * size_of(view.dtype)) == 0 &&
           (view.shape[0] <= 1 || view.strides[0] % n == 0);
  };
  return (fits(views) && ...);
}

}  // namespace fastbts
