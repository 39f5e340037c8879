#pragma once

#include <cstdint>

#include "core/array/error.h"
#include "core/array/tensor_view.h"

namespace fastbts {

/// The packed layout of a network's ends: blocks of p^3 voxels of an image become channels, and
/// (M, D, H, W) becomes (M p^3, D/p, H/p, W/p). With a patch p of 1 both are the same.
inline std::int64_t n_children(std::int64_t p) { return p * p * p; }

/// The channel of a voxel of an image.
inline std::int64_t channel_of(std::int64_t image, const Shape<3>& at, std::int64_t p) {
  return ((image * p + at[0] % p) * p + at[1] % p) * p + at[2] % p;
}

/// The shape of the voxels of packed ones.
inline Shape<4> unpacked_shape(const Shape<4>& packed, std::int64_t p) {
  return {packed[0] / n_children(p), packed[1] * p, packed[2] * p, packed[3] * p};
}

/// Throws unless the patch is one that ops know.
inline void require_patch(const char* op, std::int64_t p) {
  require<OptionsError>(p == 1 || p == 2, op, ": patch: expected 1 or 2, got ", p);
}

/// Throws unless the channels of packed voxels are whole blocks.
inline void require_blocks(const char* op, const char* name, std::int64_t n_channels,
                           std::int64_t p) {
  require<InputError>(n_channels % n_children(p) == 0, op, ": ", name, ": expected a multiple of ",
                      n_children(p), " channels, got ", n_channels);
}

/// The shape of the voxels of packed floats. Throws unless an op can read them: in voxels of
/// their own on a CUDA device, and not int8.
template <typename Void>
Shape<4> packed_voxels(const char* op, const char* name, const AnyView<4, Void>& packed,
                       std::int64_t p) {
  require_patch(op, p);
  require<DeviceError>(p == 1 || !packed.device.is_cuda, op,
                       ": patch: expected 1 on cuda:", packed.device.index, ", got ", p,
                       "; there is no CUDA version for more");
  require<InputError>(packed.dtype != DType::kInt8, op, ": ", name,
                      ": expected float32 or uint16, got int8");
  require_blocks(op, name, packed.shape[0], p);
  return unpacked_shape(packed.shape, p);
}

}  // namespace fastbts
