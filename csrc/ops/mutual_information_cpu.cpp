#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/cpu/interpolation.h"
#include "core/cpu/logarithm.h"
#include "core/cpu/parallel.h"
#include "ops/mutual_information.h"

namespace fastbts {
namespace {

constexpr auto kBins = static_cast<std::size_t>(kIntensityBins);
constexpr float kUnits = 256;             // that a point counts in the histogram
constexpr std::int64_t kChunk = 1 << 14;  // points; they take about 0.2 ms

/// Fixed bins are rows, moving bins columns.
using Histogram = std::array<std::uint32_t, kBins * kBins>;

/// Two neighbours on one axis of the moving image, as offsets into it.
struct Tap {
  std::int64_t low, high;
  float part;
};

struct Axis {
  /// Whether the position is within the outer faces.
  bool contains(float position) const { return position >= -0.5F && position <= last + 0.5F; }

  Tap tap(float position) const {
    const float inside = std::clamp(position, 0.0F, last);
    const auto low = static_cast<std::int64_t>(inside);
    const float part = inside - static_cast<float>(low);
    return {low * stride, (low + (part > 0)) * stride, part};
  }

  float last;
  std::int64_t stride;
};

/// The moving image under one map.
class Moved {
 public:
  Moved(const View<const std::uint8_t, 3>& image, const View<const double, 2>& map)
      : data_(image.data) {
    for (std::size_t i = 0; i < 3; ++i) {
      axes_[i] = {static_cast<float>(image.shape[i] - 1), image.strides[i]};
      for (std::size_t j = 0; j < 4; ++j)
        map_[i][j] = static_cast<float>(*map.at(static_cast<std::int64_t>(i), j));
    }
  }

  /// Value at a point of the fixed image, 0 to 255; -1 where it is outside.
  float at(const float* point) const {
    float place[3];
    for (std::size_t i = 0; i < 3; ++i) {
      const auto& row = map_[i];
      place[i] = row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3];
    }
    for (std::size_t i = 0; i < 3; ++i) {
      if (!axes_[i].contains(place[i])) return -1;
    }
    return interpolated(axes_[0].tap(place[0]), axes_[1].tap(place[1]), axes_[2].tap(place[2]));
  }

 private:
  float interpolated(const Tap& d, const Tap& h, const Tap& w) const {
    const auto row = [&](std::int64_t start) {
      const std::uint8_t* first = data_ + start;
      return lerp(first[w.low], first[w.high], w.part);
    };
    const auto plane = [&](std::int64_t start) {
      return lerp(row(start + h.low), row(start + h.high), h.part);
    };
    return lerp(plane(d.low), plane(d.high), d.part);
  }

  const std::uint8_t* data_;
  std::array<Axis, 3> axes_;
  std::array<std::array<float, 4>, 3> map_;
};

/// Counts the points [begin, end).
void count(const MutualInformationArgs& args, const Moved& moved, std::int64_t begin,
           std::int64_t end, Histogram& histogram) {
  constexpr std::int64_t kWidth = 256 / kIntensityBins;
  constexpr float kScale = static_cast<float>(kBins - 1) / 255;
  for (std::int64_t i = begin; i < end; ++i) {
    const float value = moved.at(args.points.at(i));
    if (value < 0) continue;
    const float bin = value * kScale;
    const auto low = std::min(static_cast<std::size_t>(bin), kBins - 2);
    const auto upper = static_cast<std::uint32_t>((bin - static_cast<float>(low)) * kUnits);
    const auto row = static_cast<std::size_t>(*args.values.at(i) / kWidth);
    std::uint32_t* cell = &histogram[row * kBins + low];
    cell[0] += static_cast<std::uint32_t>(kUnits) - upper;
    cell[1] += upper;
  }
}

/// n log n, of counts.
double n_log_n(std::int64_t n) {
  const auto x = static_cast<double>(n);
  return n > 0 ? x * natural_log(x) : 0;
}

struct Counts {
  std::array<std::int64_t, kBins * kBins> joint{};
  std::array<std::int64_t, kBins> fixed{}, moving{};
  std::int64_t all = 0;

  void add(const Histogram& part) {
    for (std::size_t i = 0; i < part.size(); ++i) {
      joint[i] += part[i];
      fixed[i / kBins] += part[i];
      moving[i % kBins] += part[i];
      all += part[i];
    }
  }

  /// Entropy times `all`.
  template <std::size_t N>
  double entropy(const std::array<std::int64_t, N>& counts) const {
    double sum = 0;
    for (const std::int64_t n : counts) sum += n_log_n(n);
    return n_log_n(all) - sum;
  }
};

}  // namespace

void mutual_information_cpu(const MutualInformationArgs& args, int n_threads) {
  const std::int64_t n = args.points.shape[0], n_maps = args.maps.shape[0];
  const std::int64_t n_chunks = std::max<std::int64_t>(1, (n + kChunk - 1) / kChunk);
  std::vector<Histogram> parts(static_cast<std::size_t>(n_maps * n_chunks));
  const auto count_part = [&](std::int64_t i) {
    const std::int64_t begin = i % n_chunks * kChunk;
    const Moved moved(args.moving, args.maps.slice(i / n_chunks));
    count(args, moved, begin, std::min(n, begin + kChunk), parts[static_cast<std::size_t>(i)]);
  };
  const std::int64_t grain = 1 + kChunk / (1 + std::min(n, kChunk));
  parallel_for(
      n_maps * n_chunks, n_threads,
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) count_part(i);
      },
      grain);
  for (std::int64_t k = 0; k < n_maps; ++k) {
    Counts counts;
    for (std::int64_t c = 0; c < n_chunks; ++c)
      counts.add(parts[static_cast<std::size_t>(k * n_chunks + c)]);
    const double joint = counts.entropy(counts.joint);
    const double single = counts.entropy(counts.fixed) + counts.entropy(counts.moving);
    *args.out.at(k, 0) = joint > 0 ? single / joint : 1;
    *args.out.at(k, 1) = static_cast<double>(counts.all) /
                         (kUnits * static_cast<double>(std::max<std::int64_t>(1, n)));
  }
}

}  // namespace fastbts
