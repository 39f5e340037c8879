#include <algorithm>
#include <cmath>

#include "core/cpu/interpolation.h"
#include "core/cpu/parallel.h"
#include "ops/resample_affine.h"

namespace fastbts {
namespace {

struct Tap {
  std::int64_t low, high;
  float part;
};

/// Where a position on an axis of n voxels takes its value from; it is between the outer faces.
Tap tap_at(double position, std::int64_t n, bool nearest) {
  const double inside =
      std::clamp(nearest ? position + 0.5 : position, 0.0, static_cast<double>(n - 1));
  const auto low = static_cast<std::int64_t>(inside);
  if (nearest || low == n - 1) return {low, low, 0};
  return {low, low + 1, static_cast<float>(inside - static_cast<double>(low))};
}

/// Trilinear value between eight voxels.
template <typename T>
float sample(const View<const T, 3>& volume, const Tap& d, const Tap& h, const Tap& w) {
  const auto along_d = [&](std::int64_t y, std::int64_t x) {
    const auto value = [&](std::int64_t z) { return static_cast<float>(*volume.at(z, y, x)); };
    return lerp(value(d.low), value(d.high), d.part);
  };
  const auto along_h = [&](std::int64_t x) {
    return lerp(along_d(h.low, x), along_d(h.high, x), h.part);
  };
  return lerp(along_h(w.low), along_h(w.high), w.part);
}

/// Positions of a row of out along each of the tensor's axes.
struct Line {
  Line(const AffineMap& map, std::int64_t d, std::int64_t h) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const auto& row = map[axis];
      start[axis] = row[0] * static_cast<double>(d) + row[1] * static_cast<double>(h) + row[3];
      step[axis] = row[2];
    }
  }
  double at(std::size_t axis, std::int64_t w) const {
    return start[axis] + step[axis] * static_cast<double>(w);
  }

  double start[3], step[3];
};

/// Writes one voxel of all channels.
template <typename T, typename Out>
void write_voxel(const ResampleAffineArgs& args, const Line& line, const Shape<3>& voxel) {
  const auto tensor = args.tensor.as<T>();
  const auto out = args.out.as<Out>();
  const auto [d, h, w] = voxel;
  Tap taps[3];
  bool inside = true;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double position = line.at(axis, w),
                 faces = static_cast<double>(tensor.shape[axis + 1]) - 0.5;
    inside = inside && position >= -0.5 && position <= faces;
    taps[axis] = inside ? tap_at(position, tensor.shape[axis + 1], args.nearest) : Tap{};
  }
  for (std::int64_t c = 0; c < out.shape[0]; ++c) {
    const auto value = [&] { return sample(tensor.slice(c), taps[0], taps[1], taps[2]); };
    *out.at(c, d, h, w) = static_cast<Out>(inside ? value() : args.outside);
  }
}

template <typename T, typename Out>
void write_rows(const ResampleAffineArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n_h = args.out.shape[2], n_w = args.out.shape[3];
  for (std::int64_t row = begin; row < end; ++row) {
    const Line line(args.map, row / n_h, row % n_h);
    for (std::int64_t w = 0; w < n_w; ++w)
      write_voxel<T, Out>(args, line, {row / n_h, row % n_h, w});
  }
}

}  // namespace

void resample_affine_cpu(const ResampleAffineArgs& args, int n_threads) {
  constexpr std::int64_t kVoxels = 1 << 14;  // what a thread takes about 0.2 ms for
  const auto [n_c, n_d, n_h, n_w] = args.out.shape;
  dispatch(args.tensor.dtype, [&, n = n_d * n_h, grain = 1 + kVoxels / (1 + n_c * n_w)](auto tag) {
    using T = typename decltype(tag)::type;
    const auto rows =
        args.out.dtype == DType::kUint8 ? write_rows<T, std::uint8_t> : write_rows<T, float>;
    parallel_for(
        n, n_threads, [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); }, grain);
  });
}

}  // namespace fastbts
