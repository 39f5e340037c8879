#pragma once

#include <array>
#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct StrayCoreArgs {
  View<std::uint8_t, 3> labels;
  Box box;
  std::array<std::uint8_t, 3> values;
  std::int64_t min_voxels;
  View<std::int64_t, 1> counts;
  View<std::int32_t, 2> scratch;
};

constexpr std::int64_t kStrayCoreCounts = 3;

/// Makes stray necrotic core oedema, where other core shows what core of this tumour looks like.
/// Inner voxels are core whose six neighbours are core, inside the box. A part is a set of inner
/// voxels that touch by faces, at least min_voxels of them: a thin bridge does not join two. Its
/// faces lead to core around it; those to core that shares a face with enhancing tumour are its
/// contact. It is less than a quarter of the faces of a stray part, and at least seven tenths of
/// those of an enclosed one. If the enclosed parts have at least a twentieth of the voxels of the
/// stray ones, these become oedema, with the core that three steps by faces, through core, lead to,
/// unless other inner voxels are nearer.
///   labels      (D, H, W)        uint8, any strides  read, written  inside the box only
///   box         3 x [begin, end) voxels of labels    read
///   values      3                uint8               read           of ED, NCR, ET: all different,
///                                                                   none of them 0
///   min_voxels                   voxels, >= 0        read
///   counts      3                int64, dense        written        inner voxels of enclosed,
///                                                                   of stray parts; those changed
///   scratch     (4, n)           int32, rows dense   written        on a CUDA device: n at least
///                                                                   the box's voxels, below 2^28
/// On a CUDA device all arrays must be there. Neither layout nor threads change the result. The CPU
/// allocates a byte for each voxel of the least box around all core, and about 48 bytes for each
/// run of core along the densest axis.
void stray_core(const StrayCoreArgs& args, int n_threads, Stream stream);

void stray_core_cpu(const StrayCoreArgs& args, int n_threads);
void stray_core_cuda(const StrayCoreArgs& args, Stream stream);

}  // namespace fastbts
