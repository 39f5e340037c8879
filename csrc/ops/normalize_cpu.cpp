#include <cstring>
#include <memory>
#include <numeric>

#include "core/parallel.h"
#include "core/tile.h"
#include "ops/normalize.h"
#include "ops/normalize_stats.h"

namespace fastbts {
namespace {

constexpr std::int64_t padded(std::int64_t n) { return (n + 7) / 8 * 8; }

/// Which voxels of the box are brain; axes as in the volume's memory.
struct Brain {
  View<std::uint8_t, 3> mask;               // 1 where brain; rows are padded with zeros to a multiple of 8 bytes
  std::unique_ptr<std::uint8_t[]> storage;  // of mask; not initialised, so that its threads touch it first
  std::vector<std::int64_t> slice_begin;    // brain voxels before each slice, and of all
};

/// Marks the brain of one row; returns how many voxels that is.
template <typename T>
std::int32_t mark_brain(const View<const T, 4>& box, std::int64_t a, std::int64_t b, std::uint8_t* row) {
  const std::int64_t n = box.shape[3];
  std::fill(row, row + padded(n), std::uint8_t{0});
  for (std::int64_t m = 0; m < box.shape[0]; ++m) {
    const T* values = box.at(m, a, b);
    with_step(box.strides[3], [&](auto step) {
      for (std::int64_t c = 0; c < n; ++c) row[c] |= static_cast<std::uint8_t>(values[c * step] != T{0});
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
      for (std::int64_t b = 0; b < n_b; ++b) brain.slice_begin[a + 1] += mark_brain(box, a, b, brain.mask.at(a, b));
    }
  });
  std::partial_sum(brain.slice_begin.begin(), brain.slice_begin.end(), brain.slice_begin.begin());
  return brain;
}

/// Appends the brain values of a row, in groups of eight as brain comes in runs; returns the end of what was written.
template <typename T>
T* gather_row(const T* values, std::int64_t stride, const std::uint8_t* mask, std::int64_t n, T* out) {
  constexpr std::uint64_t kNone = 0, kAll = 0x0101010101010101;
  with_step(stride, [=, &out](auto step) {
    T* next = out;
    for (std::int64_t begin = 0; begin < n; begin += 8) {
      std::uint64_t group;
      std::memcpy(&group, mask + begin, 8);
      if (group == kAll) {
        for (std::int64_t i = 0; i < 8; ++i) *next++ = values[(begin + i) * step];
      } else if (group != kNone) {
        for (std::int64_t c = begin; c < std::min(begin + 8, n); ++c) {
          if (mask[c]) *next++ = values[c * step];
        }
      }
    }
    out = next;
  });
  return out;
}

/// Copies the brain values of one modality, in memory order.
template <typename T>
void gather_brain(const View<const T, 3>& box, const Brain& brain, int n_threads, std::vector<T>& values) {
  parallel_for(box.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    T* out = values.data() + brain.slice_begin[begin];
    for (std::int64_t a = begin; a < end; ++a) {
      for (std::int64_t b = 0; b < box.shape[1]; ++b) {
        out = gather_row(box.at(a, b), box.strides[2], brain.mask.at(a, b), box.shape[2], out);
      }
    }
  });
}

template <typename T>
void write_row(const T* values, std::int64_t stride, const std::uint8_t* mask, const Stats& stats, std::int64_t n,
               float* out) {
  const auto [lo, hi, mean, std] = stats;
  const double factor = std > 0 ? 1 / std : 0;
  with_step(stride, [=, lo = lo, hi = hi, mean = mean](auto step) {
    for (std::int64_t c = 0; c < n; ++c) {
      const double clipped = clip(static_cast<double>(values[c * step]), lo, hi);
      const auto z = static_cast<float>((clipped - mean) * factor);
      out[c] = mask[c] ? z : 0.0F;
    }
  });
}

/// Writes one modality; all three views have the same axes, in any order.
template <typename T>
void write(View<const T, 3> box, View<std::uint8_t, 3> mask, const Stats& stats, View<float, 3> target, int n_threads) {
  const auto order = transfer_order(memory_order(box.shape, box.strides), memory_order(target.shape, target.strides));
  box = box.permuted(order);
  mask = mask.permuted(order);
  target = target.permuted(order);
  parallel_for(target.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      transfer_rows(target, d, [&](std::int64_t a, std::int64_t b, float* row) {
        write_row(box.at(a, b), box.strides[2], mask.at(a, b), stats, box.shape[2], row);
      });
    }
  });
}

/// Zeroes what lies outside the inner box.
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
  std::vector<T> values(brain.slice_begin.back());
  for (std::int64_t m = 0; m < box.shape[0]; ++m) {
    gather_brain(box.slice(m), brain, n_threads, values);
    const Stats stats = stats_of(values, args.percentiles, n_threads);
    require<InputError>(std::isfinite(stats.std), "normalize: volume: modality ", m,
                        " has NaN or infinite brain voxels, or values too large for float64 statistics");
    write(box.slice(m), brain.mask, stats, target.slice(m), n_threads);
    const std::array<double, 4> row{stats.lo, stats.hi, stats.mean, stats.std};
    std::copy(row.begin(), row.end(), args.stats.at(m));
  }
}

}  // namespace

void normalize_cpu(const NormalizeArgs& args, int n_threads) {
  dispatch(args.volume.dtype, [&](auto tag) { run<typename decltype(tag)::type>(args, n_threads); });
}

}  // namespace fastbts
