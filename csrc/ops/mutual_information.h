#pragma once

#include <cstdint>

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

/// Intensities 0 to 255 are counted in this many bins.
inline constexpr std::int64_t kIntensityBins = 32;

struct MutualInformationArgs {
  View<const float, 2> points;
  View<const std::uint8_t, 1> values;
  View<const std::uint8_t, 3> moving;
  View<const double, 3> maps;
  View<double, 2> out;
};

/// Normalised mutual information of an image, known at some points, and a moving image, under
/// several maps between them: (H(fixed) + H(moving)) / H(fixed, moving), H entropies.
///   points   (N, 3)     float32             read     positions, N < 2^24
///   values   (N)        uint8               read     the fixed image there
///   moving   (D, H, W)  uint8, any strides  read     at least one voxel
///   maps     (K, 3, 4)  float64, finite     read     position -> moving voxel, centres at 0, 1..
///   out      (K, 2)     float64             written  1 to 2; share of the points inside moving
/// Points beyond the outer faces of moving are left out; between these and the outermost centres
/// the edge value is used. The joint histogram has 32 x 32 bins. A fixed value counts in one bin; a
/// moving one, interpolated trilinearly in float32, is shared between two in steps of 1/256, so
/// that the result changes smoothly with the map. Counts are integers and the logarithm is our own:
/// the same bits for any n_threads and on every CPU. 1 where no entropy is left.
/// Definition: Studholme et al., "An overlap invariant entropy measure of 3D medical image
/// alignment", 1999. There is no CUDA version.
void mutual_information(const MutualInformationArgs& args, int n_threads, Stream stream);

void mutual_information_cpu(const MutualInformationArgs& args, int n_threads);

}  // namespace fastbts
