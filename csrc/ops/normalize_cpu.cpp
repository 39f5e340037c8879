#include <cstring>
#include <memory>
#include <numeric>

#include "core/array/dense.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"
#include "core/cpu/tile.h"
#include "core/cpu/wide.h"
#include "ops/normalize.h"
#include "ops/normalize_stats.h"

namespace fastbts {
namespace {

constexpr std::int64_t padded(std::int64_t n) { return (n + 7) / 8 * 8; }

/// Which voxels of the box are brain; axes as in the volume's memory.
struct Brain {
  View<std::uint8_t, 3> mask;  // 1 where brain; rows are padded with zeros to a multiple of 8 bytes
  std::unique_ptr<std::uint8_t[]>
      storage;  // of mask; not initialised, so that its threads touch it first
  std::vector<std::int64_t> slice_begin;  // brain voxels before each slice, and of all
};

/// Marks the brain of one row; returns how many voxels that is.
template <typename T>
std::int32_t mark_brain(const View<const T, 4>& box, std::int64_t a, std::int64_t b,
                        std::uint8_t* __restrict row) {
  const std::int64_t n = box.shape[3];
  std::fill(row, row + padded(n), std::uint8_t{0});
  for (std::int64_t m = 0; m < box.shape[0]; ++m) {
    const T* values = box.at(m, a, b);
    with_step(box.strides[3], [&](auto step) {
      for (std::int64_t c = 0; c < n; ++c)
        row[c] |= static_cast<std::uint8_t>(values[c * step] != T{0});
    });
  }
  return std::accumulate(row, row + n, std::int32_t{0});
}

template <typename T>
Brain find_brain(const View<const T, 4>& box, int n_threads) {
  const std::int64_t n_a = box.shape[1], n_b = box.shape[2], n_c = box.shape[3];
  Brain brain;
  brain.storage.reset(new std::uint8_t[static_cast<std::size_t>(n_a * n_b * padded(n_c))]);
  brain.mask = {brain.storage.get(), {n_a, n_b, n_c}, {n_b * padded(n_c), padded(n_c), 1}};
  brain.slice_begin.assign(n_a + 1, 0);
  parallel_for(n_a, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t a = begin; a < end; ++a) {
      for (std::int64_t b = 0; b < n_b; ++b)
        brain.slice_begin[a + 1] += mark_brain(box, a, b, brain.mask.at(a, b));
    }
  });
  std::partial_sum(brain.slice_begin.begin(), brain.slice_begin.end(), brain.slice_begin.begin());
  return brain;
}

/// Calls fn(value) for the brain values of a row, in groups of eight as brain comes in runs.
template <typename T, typename Fn>
void for_brain(const T* values, std::int64_t stride, const std::uint8_t* mask, std::int64_t n,
               Fn&& fn) {
  constexpr std::uint64_t kNone = 0, kAll = 0x0101010101010101;
  with_step(stride, [&](auto step) {
    for (std::int64_t begin = 0; begin < n; begin += 8) {
      std::uint64_t group;
      std::memcpy(&group, mask + begin, 8);
      if (group == kAll) {
        for (std::int64_t i = 0; i < 8; ++i) fn(values[(begin + i) * step]);
      } else if (group != kNone) {
        for (std::int64_t c = begin; c < std::min(begin + 8, n); ++c) {
          if (mask[c]) fn(values[c * step]);
        }
      }
    }
  });
}

/// Calls fn(value) for the brain values of slice a of one modality, in memory order.
template <typename T, typename Fn>
void for_brain(const View<const T, 3>& box, const Brain& brain, std::int64_t a, Fn&& fn) {
  for (std::int64_t b = 0; b < box.shape[1]; ++b)
    for_brain(box.at(a, b), box.strides[2], brain.mask.at(a, b), box.shape[2], fn);
}

/// Copies the brain values of one modality, in memory order.
template <typename T>
std::vector<T> gather_brain(const View<const T, 3>& box, const Brain& brain, int n_threads) {
  std::vector<T> values(brain.slice_begin.back());
  parallel_for(box.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    T* next = values.data() + brain.slice_begin[begin];
    for (std::int64_t a = begin; a < end; ++a)
      for_brain(box, brain, a, [&](T value) { *next++ = value; });
  });
  return values;
}

/// Counts the brain values of one modality.
template <typename T>
Histogram<T> count_brain(const View<const T, 3>& box, const Brain& brain, int n_threads) {
  Histogram<T> histogram;
  count(box.shape[0], n_threads, histogram, [&](std::int64_t begin, std::int64_t end, auto&& add) {
    for (std::int64_t a = begin; a < end; ++a) for_brain(box, brain, a, add);
  });
  return histogram;
}

template <typename T>
Stats stats_of_brain(const View<const T, 3>& box, const Brain& brain,
                     const std::array<double, 2>& percentiles, int n_threads) {
  if constexpr (kCountable<T>) {
    return stats_of(count_brain(box, brain, n_threads), brain.slice_begin.back(), percentiles);
  } else {
    return stats_of(gather_brain(box, brain, n_threads), percentiles, n_threads);
  }
}

/// z-scores of a row, zero where there is no brain. From lo on, differences of small integers are
/// exact in float32.
template <typename T>
void write_row(const T* values, std::int64_t stride, const std::uint8_t* mask, const Stats& stats,
               std::int64_t n, float* __restrict out) {
  using Real = std::conditional_t<kCountable<T>, float, double>;
  const auto lo = static_cast<Real>(stats.lo), hi = static_cast<Real>(stats.hi);
  const auto factor = static_cast<Real>(stats.std > 0 ? 1 / stats.std : 0);
  const auto z_of_lo = static_cast<Real>(stats.std > 0 ? (stats.lo - stats.mean) / stats.std : 0);
  with_step(stride, [=](auto step) {
    for (std::int64_t c = 0; c < n; ++c) {
      const Real clipped = clip(static_cast<Real>(values[c * step]), lo, hi);
      const auto z = static_cast<float>((clipped - lo) * factor + z_of_lo);
      out[c] = mask[c] ? z : 0.0F;
    }
  });
}

/// Writes one modality; all three views have the same axes, in any order.
template <typename T>
void write(View<const T, 3> box, View<std::uint8_t, 3> mask, const Stats& stats,
           View<float, 3> target, bool nontemporal, int n_threads) {
  const auto order = transfer_order(memory_order(box.shape, box.strides),
                                    memory_order(target.shape, target.strides));
  box = box.permuted(order);
  mask = mask.permuted(order);
  target = target.permuted(order);
  parallel_for(target.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      transfer_rows(target, d, nontemporal, [&](std::int64_t a, std::int64_t b, float* row) {
        wide([&] {
          write_row(box.at(a, b), box.strides[2], mask.at(a, b), stats, box.shape[2], row);
        });
      });
    }
    store_fence();
  });
}

/// Zeroes all outside the inner box.
void clear_outside(const View<float, 4>& tensor, const Box& inner, int n_threads) {
  const std::int64_t n_d = tensor.shape[1], n_w = tensor.shape[3];
  parallel_for(tensor.shape[0] * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t h = 0; h < tensor.shape[2]; ++h) {
        float* row = tensor.at(i / n_d, i % n_d, h);
        const bool crosses = inner[0].contains(i % n_d) && inner[1].contains(h);
        std::fill(row, row + (crosses ? inner[2].begin : n_w), 0.0F);
        if (crosses) std::fill(row + inner[2].end, row + n_w, 0.0F);
      }
    }
  });
}

template <typename T>
void run(const NormalizeArgs& args, int n_threads) {
  const View<float, 4> tensor = args.tensor.as<float>();
  const Box inner = centred(args.box, tensor.shape);
  clear_outside(tensor, inner, n_threads);

  View<const T, 4> box = args.volume.as<T>().cropped(args.box);
  const auto order = memory_order(box.shape, box.strides);
  box = box.permuted(order);
  View<float, 4> target = tensor.cropped(inner).permuted(order);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (box.strides[axis + 1] >= 0) continue;
    box = box.mirrored(axis);
    target = target.mirrored(axis);
  }
  const Brain brain = find_brain(box, n_threads);
  const bool nontemporal = is_nontemporal(n_elements(tensor.shape));
  for (std::int64_t m = 0; m < box.shape[0]; ++m) {
    const Stats stats = stats_of_brain(box.slice(m), brain, args.percentiles, n_threads);
    require<InputError>(
        std::isfinite(stats.std), "normalize: volume: modality ", m,
        " has NaN or infinite brain voxels, or values too large for float64 statistics");
    write(box.slice(m), brain.mask, stats, target.slice(m), nontemporal, n_threads);
    const std::array<double, 4> row{stats.lo, stats.hi, stats.mean, stats.std};
    std::copy(row.begin(), row.end(), args.stats.at(m));
  }
}

}  // namespace

void normalize_cpu(const NormalizeArgs& args, int n_threads) {
  dispatch(args.volume.dtype,
           [&](auto tag) { run<typename decltype(tag)::type>(args, n_threads); });
}

}  // namespace fastbts
