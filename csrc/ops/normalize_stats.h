#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <numeric>
#include <type_traits>
#include <vector>

#include "core/cpu/order_key.h"
#include "core/cpu/parallel.h"

namespace fastbts {

/// Of values clipped to [lo, hi].
struct Stats {
  double lo = 0, hi = 0, mean = 0, std = 0;
};

/// std::clamp as two instructions.
template <typename Real>
Real clip(Real value, Real lo, Real hi) {
  return std::min(std::max(value, lo), hi);
}

/// Whether a histogram with a bin for each value of the type fits into a cache.
template <typename T>
inline constexpr bool kCountable = std::is_integral_v<T> && sizeof(T) <= 2;

/// Unsigned integer of the width of T.
template <typename T>
using Bits = std::make_unsigned_t<Key<T>>;

/// Values counted by order key: bin i holds the keys from first + (i << shift). With a
/// shift of 0 it is exact.
template <typename T>
struct Histogram {
  using Unsigned = Bits<T>;

  Histogram(Key<T> least, Key<T> most) : first(static_cast<Unsigned>(least)) {
    const auto range = static_cast<Unsigned>(static_cast<Unsigned>(most) - first);
    while (range >> shift > 0xFFFF) ++shift;
    counts.resize(static_cast<std::size_t>(range >> shift) + 1);
  }

  std::size_t bin(T value) const {
    const auto above = static_cast<Unsigned>(static_cast<Unsigned>(to_key(value)) - first);
    if constexpr (sizeof(T) <= 2) return above;  // the shift is always 0
    return static_cast<std::size_t>(above >> shift);
  }

  /// The only value of a bin; for a shift of 0.
  T value(std::size_t bin) const {
    return from_key<T>(static_cast<Key<T>>(static_cast<Unsigned>(first + bin)));
  }

  Unsigned first;
  int shift = 0;
  std::vector<std::int64_t> counts;
};

/// For integers that have only these bits: a bin for each, which are far fewer than the type has.
template <typename T>
Histogram<T> histogram_of_bits(unsigned bits) {
  for (unsigned shift = 1; shift < 16; shift *= 2) bits |= bits >> shift;
  const T most = static_cast<T>(bits);
  if (most < T{0})
    return {to_key(std::numeric_limits<T>::min()), to_key(std::numeric_limits<T>::max())};
  return {to_key(T{0}), to_key(most)};
}

inline constexpr std::int64_t kBlock =
    1 << 16;  // values summed in order; fixed, so that sums do not depend on threads

/// Calls fn(values, n, block) for each block of values.
template <typename T, typename Fn>
void for_each_block(const std::vector<T>& values, int n_threads, Fn&& fn) {
  const auto n = static_cast<std::int64_t>(values.size());
  parallel_for((n + kBlock - 1) / kBlock, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      fn(values.data() + b * kBlock, std::min(kBlock, n - b * kBlock), b);
  });
}

/// Smallest and largest key.
template <typename T>
std::array<Key<T>, 2> key_range(const std::vector<T>& values, int n_threads) {
  std::array<Key<T>, 2> range{to_key(values[0]), to_key(values[0])};
  std::mutex mutex;
  for_each_block(values, n_threads, [&](const T* block, std::int64_t n, std::int64_t) {
    Key<T> least = to_key(block[0]), most = least;
    for (std::int64_t i = 1; i < n; ++i) {
      least = std::min(least, to_key(block[i]));
      most = std::max(most, to_key(block[i]));
    }
    const std::lock_guard<std::mutex> lock(mutex);
    range = {std::min(range[0], least), std::max(range[1], most)};
  });
  return range;
}

/// Counts the values of n items; for_each(begin, end, add) calls add(value) for those of some.
template <typename T, typename ForEach>
void count(std::int64_t n, int n_threads, Histogram<T>& histogram, ForEach&& for_each) {
  std::mutex mutex;
  parallel_for(n, n_threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint32_t> counts(histogram.counts.size());
    for_each(begin, end,
             [counts = counts.data(), bins = &histogram](T value) { ++counts[bins->bin(value)]; });
    const std::lock_guard<std::mutex> lock(mutex);
    for (std::size_t b = 0; b < counts.size(); ++b) histogram.counts[b] += counts[b];
  });
}

/// Index of a percentile among n sorted values: inverted CDF, Hyndman & Fan 1996 type 1, rounded as
/// in NumPy.
inline std::int64_t percentile_rank(std::int64_t n, double percent) {
  const double index = static_cast<double>(n) * (percent / 100) - 1;
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::ceil(index)), 0, n - 1);
}

/// The value at a rank among all values: its bin, and its rank among the values of that bin.
template <typename T>
struct Ranked {
  Ranked(const Histogram<T>& histogram, std::int64_t rank_of_all) : rank(rank_of_all) {
    while (rank >= histogram.counts[bin]) rank -= histogram.counts[bin++];
  }

  T select() {
    std::nth_element(inside.begin(), inside.begin() + rank, inside.end());
    return inside[rank];
  }

  std::size_t bin = 0;
  std::int64_t rank;
  std::vector<T> inside;  // values of the bin
};

/// The values at two ranks among the sorted values; sorts only the bins they are in.
template <typename T>
std::array<T, 2> values_at(const std::array<std::int64_t, 2>& ranks, const std::vector<T>& values,
                           const Histogram<T>& histogram, int n_threads) {
  Ranked<T> lo(histogram, ranks[0]), hi(histogram, ranks[1]);
  if (histogram.shift == 0) return {histogram.value(lo.bin), histogram.value(hi.bin)};
  std::mutex mutex;
  for_each_block(values, n_threads, [&](const T* block, std::int64_t n, std::int64_t) {
    std::vector<T> in_lo, in_hi;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::size_t bin = histogram.bin(block[i]);
      if (bin == lo.bin) in_lo.push_back(block[i]);
      if (bin == hi.bin) in_hi.push_back(block[i]);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    lo.inside.insert(lo.inside.end(), in_lo.begin(), in_lo.end());
    hi.inside.insert(hi.inside.end(), in_hi.begin(), in_hi.end());
  });
  return {lo.select(), hi.select()};
}

/// Number, mean and sum of squared deviations from the mean.
struct Moments {
  double n = 0, mean = 0, squares = 0;

  /// Chan, Golub & LeVeque 1979, eq. 2.1.
  void add(const Moments& other) {
    const double all = n + other.n, difference = other.mean - mean;
    mean += difference * (other.n / all);
    squares += other.squares + difference * difference * (n * other.n / all);
    n = all;
  }
};

template <typename T>
Moments moments_of_histogram(const Histogram<T>& histogram, double lo, double hi) {
  const auto for_each_value = [&](auto&& fn) {
    for (std::size_t b = 0; b < histogram.counts.size(); ++b) {
      const auto n = static_cast<double>(histogram.counts[b]);
      if (n > 0) fn(n, clip(static_cast<double>(histogram.value(b)), lo, hi));
    }
  };
  Moments moments;
  for_each_value([&](double n, double value) {
    moments.n += n;
    moments.mean += n * value;
  });
  moments.mean /= moments.n;
  for_each_value([&](double n, double value) {
    const double deviation = value - moments.mean;
    moments.squares += n * deviation * deviation;
  });
  return moments;
}

/// Sum of term(i) for i < n, in eight interleaved parts: a fixed order that can be vectorised.
template <typename Term>
double sum(std::int64_t n, Term&& term) {
  constexpr std::int64_t kLanes = 8;
  std::array<double, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
  return std::accumulate(lanes.begin(), lanes.end(), 0.0);
}

template <typename T>
Moments moments_of_block(const T* values, std::int64_t n, double lo, double hi) {
  const auto value = [=](std::int64_t i) { return clip(static_cast<double>(values[i]), lo, hi); };
  const double mean = sum(n, value) / static_cast<double>(n);
  const double squares =
      sum(n, [=](std::int64_t i) { return (value(i) - mean) * (value(i) - mean); });
  return {static_cast<double>(n), mean, squares};
}

template <typename T>
Moments moments_of_values(const std::vector<T>& values, double lo, double hi, int n_threads) {
  std::vector<Moments> parts((values.size() + kBlock - 1) / kBlock);
  for_each_block(values, n_threads, [&](const T* block, std::int64_t n, std::int64_t b) {
    parts[b] = moments_of_block(block, n, lo, hi);
  });
  Moments total;
  for (const Moments& part : parts) total.add(part);
  return total;
}

/// Percentiles, and mean and std of the values clipped to them; all zero for no values, std NaN
/// unless all are finite.
template <typename T>
Stats stats_of(const std::vector<T>& values, const std::array<double, 2>& percentiles,
               int n_threads) {
  if (values.empty()) return {};
  const auto [least, most] = key_range(values, n_threads);
  if (least < to_key(std::numeric_limits<T>::lowest()) ||
      most > to_key(std::numeric_limits<T>::max())) {
    return {0, 0, 0, std::numeric_limits<double>::quiet_NaN()};
  }
  Histogram<T> histogram(least, most);
  const auto n = static_cast<std::int64_t>(values.size());
  count(n, n_threads, histogram, [&](std::int64_t begin, std::int64_t end, auto&& add) {
    std::for_each(values.begin() + begin, values.begin() + end, add);
  });
  const std::array<std::int64_t, 2> ranks{percentile_rank(n, percentiles[0]),
                                          percentile_rank(n, percentiles[1])};
  const auto [value_lo, value_hi] = values_at(ranks, values, histogram, n_threads);
  const auto lo = static_cast<double>(value_lo), hi = static_cast<double>(value_hi);
  if (lo == hi)
    return {lo, hi, lo, 0};  // a sum of equal numbers would leave a std of rounding errors
  const Moments moments = histogram.shift == 0 ? moments_of_histogram(histogram, lo, hi)
                                               : moments_of_values(values, lo, hi, n_threads);
  return {lo, hi, moments.mean, std::sqrt(moments.squares / moments.n)};
}

/// The same from the exact histogram of n values.
template <typename T>
Stats stats_of(const Histogram<T>& histogram, std::int64_t n,
               const std::array<double, 2>& percentiles) {
  if (n == 0) return {};
  const auto at = [&](double percent) {
    return static_cast<double>(
        histogram.value(Ranked<T>(histogram, percentile_rank(n, percent)).bin));
  };
  const double lo = at(percentiles[0]), hi = at(percentiles[1]);
  if (lo == hi) return {lo, hi, lo, 0};
  const Moments moments = moments_of_histogram(histogram, lo, hi);
  return {lo, hi, moments.mean, std::sqrt(moments.squares / moments.n)};
}

}  // namespace fastbts
