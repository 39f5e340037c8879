#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>
#include <type_traits>
#include <vector>

#include "core/cpu/order_key.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/brain_box.h"

namespace fastbts {
namespace {

using Flags = std::vector<std::uint8_t>;

/// What one thread found: counts, and which positions along each axis have brain.
struct Seen {
  explicit Seen(const Shape<4>& shape) : n_nonfinite(shape[0]), n_nonzero(shape[0]) {
    for (std::size_t axis = 0; axis < 3; ++axis) any[axis].resize(shape[axis + 1]);
  }

  void add(const Seen& other) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      for (std::size_t i = 0; i < any[axis].size(); ++i) any[axis][i] |= other.any[axis][i];
    }
    for (std::size_t m = 0; m < n_nonzero.size(); ++m) {
      n_nonfinite[m] += other.n_nonfinite[m];
      n_nonzero[m] += other.n_nonzero[m];
    }
    n_brain += other.n_brain;
  }

  std::array<Flags, 3> any;
  std::vector<std::int64_t> n_nonfinite, n_nonzero;
  std::int64_t n_brain = 0;
};

/// A fast check whether a row is all zero, as half of them are; false for rows with -0 and for rows
/// that are not dense.
template <typename T>
bool is_blank(const T* values, std::int64_t stride, std::int64_t n) {
  Key<T> any = 0;
  for (std::int64_t w = 0; w < n && stride == 1; ++w) {
    Key<T> bits;
    std::memcpy(&bits, values + w, sizeof(T));
    any = static_cast<Key<T>>(any | bits);
  }
  return stride == 1 && any == 0;
}

/// Sets row[w] where the modality is non-zero; returns how many are. NaN is non-zero, -0 is zero.
template <typename T>
std::int32_t mark_nonzero(const T* values, std::int64_t stride, std::int64_t n,
                          std::uint8_t* __restrict row) {
  std::int32_t n_nonzero = 0;
  with_step(stride, [&](auto step) {
    for (std::int64_t w = 0; w < n; ++w) {
      const std::uint8_t nonzero = values[w * step] != T{0};
      row[w] |= nonzero;
      n_nonzero += nonzero;
    }
  });
  return n_nonzero;
}

template <typename T>
std::int32_t count_nonfinite([[maybe_unused]] const T* values, [[maybe_unused]] std::int64_t stride,
                             [[maybe_unused]] std::int64_t n) {
  std::int32_t n_nonfinite = 0;
  if constexpr (std::is_floating_point_v<T>) {
    with_step(stride, [&](auto step) {
      for (std::int64_t w = 0; w < n; ++w)
        n_nonfinite += !(values[w * step] - values[w * step] == T{0});
    });
  }
  return n_nonfinite;
}

/// Scans one row of all modalities.
template <typename T>
void scan_row(const View<const T, 4>& volume, std::int64_t d, std::int64_t h, Flags& row,
              Seen& seen) {
  const auto [n_modalities, n_d, n_h, n_w] = volume.shape;
  bool blank = true;
  std::fill(row.begin(), row.end(), std::uint8_t{0});
  for (std::int64_t m = 0; m < n_modalities; ++m) {
    if (is_blank(volume.at(m, d, h), volume.strides[3], n_w)) continue;
    blank = false;
    seen.n_nonzero[m] += mark_nonzero(volume.at(m, d, h), volume.strides[3], n_w, row.data());
    seen.n_nonfinite[m] += count_nonfinite(volume.at(m, d, h), volume.strides[3], n_w);
  }
  const std::int32_t n_brain = blank ? 0 : std::accumulate(row.begin(), row.end(), std::int32_t{0});
  if (n_brain == 0) return;
  seen.n_brain += n_brain;
  seen.any[0][d] = seen.any[1][h] = 1;
  std::transform(row.begin(), row.end(), seen.any[2].begin(), seen.any[2].begin(), std::bit_or<>());
}

/// Scans the slices [begin, end) along the first axis.
template <typename T>
Seen scan(const View<const T, 4>& volume, std::int64_t begin, std::int64_t end) {
  Seen seen(volume.shape);
  Flags row(volume.shape[3]);
  for (std::int64_t d = begin; d < end; ++d) {
    for (std::int64_t h = 0; h < volume.shape[2]; ++h)
      wide([&] { scan_row(volume, d, h, row, seen); });
  }
  return seen;
}

Bounds bounds_of(const Flags& any) {
  const auto first = std::find(any.begin(), any.end(), 1);
  if (first == any.end()) return {};
  const auto last = std::find(any.rbegin(), any.rend(), 1);
  return {first - any.begin(), any.rend() - last};
}

template <typename T>
void find(View<const T, 4> volume, int n_threads, std::int64_t* found) {
  const auto order = memory_order(volume.shape, volume.strides);
  volume = volume.permuted(order);
  std::array<bool, 3> mirrored{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    mirrored[axis] = volume.strides[axis + 1] < 0;
    if (mirrored[axis])
      volume = volume.mirrored(axis);  // memory is read forwards, as prefetchers like it
  }

  Seen total(volume.shape);
  std::mutex mutex;
  parallel_for(volume.shape[1], n_threads, [&](std::int64_t begin, std::int64_t end) {
    const Seen part = scan(volume, begin, end);
    const std::lock_guard<std::mutex> lock(mutex);
    total.add(part);
  });
  for (std::size_t i = 0; i < 3; ++i) {
    if (mirrored[i]) std::reverse(total.any[i].begin(), total.any[i].end());
    const Bounds bounds = bounds_of(total.any[i]);
    found[2 * order[i]] = bounds.begin;
    found[2 * order[i] + 1] = bounds.end;
  }
  found[6] = total.n_brain;
  std::copy(total.n_nonfinite.begin(), total.n_nonfinite.end(), found + 7);
  std::copy(total.n_nonzero.begin(), total.n_nonzero.end(), found + 7 + volume.shape[0]);
}

}  // namespace

void brain_box_cpu(const BrainBoxArgs& args, int n_threads) {
  dispatch(args.volume.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    find(args.volume.as<T>(), n_threads, args.found.data);
  });
}

}  // namespace fastbts
