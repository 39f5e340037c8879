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
/// A part is a set of voxels of core that touch by faces inside the box, at least min_voxels of
/// them. Of its faces to other voxels, or to the outside, a stray part has less than a fifth to
/// enhancing tumour, an enclosed one at least three fifths. Stray parts change if the enclosed ones
/// have at least a tenth of their voxels.
///   labels      (D, H, W)        uint8, any strides  read, written  inside the box only
///   box         3 x [begin, end) voxels of labels    read
///   values      3                uint8               read           of ED, NCR, ET: all different,
///                                                                   none of them 0
///   min_voxels                   voxels, >= 0        read
///   counts      3                int64, dense        written        voxels of enclosed parts, of
///                                                                   stray ones, and those changed
///   scratch     (4, n)           int32, rows dense   written        on a CUDA device: n at least
///                                                                   the box's voxels, below 2^28
/// On a CUDA device all arrays must be there. Neither layout nor threads change the result. The CPU
/// allocates about 48 bytes for each run of core along the densest axis.
void stray_core(const StrayCoreArgs& args, int n_threads, Stream stream);

void stray_core_cpu(const StrayCoreArgs& args, int n_threads);
void stray_core_cuda(const StrayCoreArgs& args, Stream stream);

}  // namespace fastbts
