#pragma once

#include "core/cuda/block.h"
#include "core/cuda/interpolation.h"
#include "core/cuda/strided.h"

/// Memory traffic (estimate): tensor and out once. 4 x 120 x 144 x 120 to 144 x 176 x 144 voxels,
/// float16: 46 MB, 15 us at 3.0 TB/s, 11 us at 4.3 TB/s; expected 60 us, of which arithmetic takes
/// most. One launch.
namespace fastbts {

/// Lengths of the axes C, D, H, W of tensor and out.
struct ResampleSizes {
  std::int64_t from[4], to[4];
};

/// Most points of out along D, H and W together whose taps are kept in shared memory.
inline constexpr std::int64_t kMostTaps = 4096;

/// The taps of one axis: from a table, or of too many points each one when it is needed.
struct TapTable {
  const Tap* table;
  int n_in, n_out;

  FASTBTS_DEVICE Tap operator[](std::int64_t i) const {
    return table ? table[i] : tap_of(static_cast<int>(i), n_in, n_out);
  }
};

/// The taps of an axis; all threads of a block call it, and wait before they read them.
FASTBTS_DEVICE TapTable taps_of_axis(Tap* table, std::int64_t n_in, std::int64_t n_out) {
  const TapTable each{nullptr, static_cast<int>(n_in), static_cast<int>(n_out)};
  for (unsigned i = block_thread(); table && i < n_out; i += n_block_threads()) table[i] = each[i];
  return {table, each.n_in, each.n_out};
}

/// Rows of the tensor: at the low or high position along D, then along H.
template <typename T>
struct FourLines {
  const T *low_low, *high_low, *low_high, *high_high;
};

/// Trilinear value between four rows; D, then H, then W as on the CPU.
template <typename T>
FASTBTS_DEVICE float sample(const FourLines<T>& lines, float part_d, float part_h, const Tap& w) {
  const auto along_h = [&](int x) {
    return lerp(lerp(to_float(lines.low_low[x]), to_float(lines.high_low[x]), part_d),
                lerp(to_float(lines.low_high[x]), to_float(lines.high_high[x]), part_d), part_h);
  };
  return lerp(along_h(w.low), along_h(w.high), w.part);
}

/// A warp for each row (c, d, h) of out; tensor and out are dense. Dynamic shared memory: a Tap for
/// each point of out along D, H and W, if has_tables.
template <typename T>
FASTBTS_KERNEL void resample_kernel(const T* tensor, ResampleSizes sizes, T* out, bool has_tables,
                                    std::uint32_t n_rows) {
  FASTBTS_DYNAMIC_SHARED(Tap, tables);
  const std::int64_t *from = sizes.from, *to = sizes.to;
  Tap *of_d = has_tables ? tables : nullptr, *of_h = of_d ? of_d + to[1] : nullptr,
      *of_w = of_d ? of_h + to[2] : nullptr;
  const TapTable taps_d = taps_of_axis(of_d, from[1], to[1]),
                 taps_h = taps_of_axis(of_h, from[2], to[2]),
                 taps_w = taps_of_axis(of_w, from[3], to[3]);
  __syncthreads();
  for (std::uint32_t row = first_row(); row < n_rows; row += row_step()) {
    const Row<3> at(row, to);
    const Tap d = taps_d[at.index[1]], h = taps_h[at.index[2]];
    const T* channel = tensor + at.index[0] * from[1] * from[2] * from[3];
    const auto line = [&](int z, int y) { return channel + (z * from[2] + y) * from[3]; };
    const FourLines<T> lines{line(d.low, h.low), line(d.high, h.low), line(d.low, h.high),
                             line(d.high, h.high)};
    T* target = out + static_cast<std::int64_t>(row) * to[3];
    for (int w = static_cast<int>(threadIdx.x); w < to[3]; w += kWarp)
      target[w] = from_float<T>(sample(lines, d.part, h.part, taps_w[w]));
  }
}

}  // namespace fastbts
