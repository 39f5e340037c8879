#pragma once

#include "core/cuda/interpolation.h"
#include "core/cuda/limits.h"
#include "core/cuda/numbers.h"
#include "core/cuda/strided.h"
#include "core/cuda/tile.h"

/// Memory traffic (estimate): tensor and out once. 240 x 240 x 155 voxels to as many, int16 to
/// float32: 54 MB, 18 us at 3.0 TB/s, 12 us at 4.3 TB/s; expected 60 us, of which arithmetic takes
/// most. One launch.
namespace fastbts {

struct ResampleAffineSettings {
  double map[3][4];
  bool nearest;
  float outside;
};

/// Where a position on an axis of n voxels takes its value from; it is between the outer faces.
FASTBTS_DEVICE Tap tap_at(double position, int n, bool nearest) {
  const double shifted = nearest ? position + 0.5 : position;
  if (shifted <= 0) return {0, 0, 0.0F};
  if (shifted >= n - 1) return {n - 1, n - 1, 0.0F};
  const int low = static_cast<int>(shifted);
  return nearest ? Tap{low, low, 0.0F} : Tap{low, low + 1, static_cast<float>(shifted - low)};
}

/// Where a voxel of out takes its values from; low and high count elements from the first one of a
/// channel, as 32-bit numbers where these suffice.
template <typename Offset>
struct Place {
  Offset low[3], high[3];
  float part[3];
  bool inside;
};

template <typename Offset>
FASTBTS_DEVICE Place<Offset> place_of(const AnyStrided<4>& tensor,
                                      const ResampleAffineSettings& settings, std::int64_t d,
                                      std::int64_t h, std::int64_t w) {
  Place<Offset> place{};
  place.inside = true;
  for (int axis = 0; axis < 3; ++axis) {
    const double* m = settings.map[axis];
    const double start = m[0] * static_cast<double>(d) + m[1] * static_cast<double>(h) + m[3];
    const double position = start + m[2] * static_cast<double>(w);
    const int n = static_cast<int>(tensor.shape[axis + 1]);
    place.inside = place.inside && position >= -0.5 && position <= n - 0.5;
    if (!place.inside) return place;
    const Tap tap = tap_at(position, n, settings.nearest);
    const auto step = static_cast<Offset>(tensor.strides[axis + 1]);
    place.low[axis] = static_cast<Offset>(tap.low) * step;
    place.high[axis] = static_cast<Offset>(tap.high) * step;
    place.part[axis] = tap.part;
  }
  return place;
}

/// Trilinear value of channel c between eight voxels; D, then H, then W as on the CPU. The nearest
/// voxel is interpolated with itself, as there.
template <typename Bits, typename Offset>
FASTBTS_DEVICE float sample(const AnyStrided<4>& tensor, std::int64_t c,
                            const ResampleAffineSettings& settings, const Place<Offset>& place) {
  if (!place.inside) return settings.outside;
  const Bits* channel = static_cast<const Bits*>(tensor.data) + c * tensor.strides[0];
  if (settings.nearest) {
    const auto value =
        number<float>(channel[place.low[0] + place.low[1] + place.low[2]], tensor.dtype);
    return lerp(value, value, 0.0F);
  }
  const auto along_d = [&](Offset rest) {
    return lerp(number<float>(channel[place.low[0] + rest], tensor.dtype),
                number<float>(channel[place.high[0] + rest], tensor.dtype), place.part[0]);
  };
  const auto along_h = [&](Offset x) {
    return lerp(along_d(place.low[1] + x), along_d(place.high[1] + x), place.part[1]);
  };
  return lerp(along_h(place.low[2]), along_h(place.high[2]), place.part[2]);
}

FASTBTS_DEVICE void store_sample(const AnyStrided<4, void>& out, std::int64_t i, float value) {
  if (out.dtype == DType::kUint8) {
    static_cast<std::uint8_t*>(out.data)[i] = static_cast<std::uint8_t>(value);
  } else {
    store(out.data, out.dtype, i, value);
  }
}

/// A warp for each row (d, h) of out, for all channels.
template <typename Bits, typename Offset>
FASTBTS_KERNEL void resample_affine_kernel(AnyStrided<4> tensor, ResampleAffineSettings settings,
                                           AnyStrided<4, void> out, std::uint32_t n_rows) {
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const auto [d, h] = Row<2>(row, out.shape + 1).index;
    for (std::int64_t w = threadIdx.x; w < out.shape[3]; w += blockDim.x) {
      const auto place = place_of<Offset>(tensor, settings, d, h, w);
      for (std::int64_t c = 0; c < out.shape[0]; ++c) {
        const float value = sample<Bits>(tensor, c, settings, place);
        store_sample(out, out.offset(c, d, h, w), value);
      }
    }
  }
}

/// The same for tensors whose memory is followed along H of out: see tile.h.
template <typename Bits, typename Offset>
FASTBTS_KERNEL FASTBTS_BOUNDS(kWarpRowThreads, 4) void resample_affine_tiles_kernel(
    AnyStrided<4> tensor, ResampleAffineSettings settings, AnyStrided<4, void> out, Tiles tiles,
    std::uint32_t n_tiles) {
  for_each_tile<float>(
      tiles, n_tiles, out.shape,
      [&](std::int64_t c, std::int64_t d, std::int64_t h, std::int64_t w, int step, float* values) {
#pragma unroll 1
        for (int k = 0; k < kReads; ++k, w += step)
          values[k] =
              sample<Bits>(tensor, c, settings, place_of<Offset>(tensor, settings, d, h, w));
      },
      [&](std::int64_t c, std::int64_t d, std::int64_t h, std::int64_t w, float value) {
        store_sample(out, out.offset(c, d, h, w), value);
      });
}

}  // namespace fastbts
