#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/array/tensor_view.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"

namespace fastbts {

/// Order of the three axes for reading rows of a source and writing a target of any strides: the
/// last axis is the source's densest, the middle one the target's densest of the other two.
inline std::array<std::size_t, 3> transfer_order(const std::array<std::size_t, 3>& source,
                                                 const std::array<std::size_t, 3>& target) {
  const std::size_t last = source[2];
  const std::size_t middle = target[2] != last ? target[2] : target[1];
  return {3 - last - middle, middle, last};
}

/// Copies dense rows into the target (rows, columns), writing along the target's denser axis; dense
/// rows past the caches if `nontemporal`.
template <typename T>
void store_rows(const T* rows, const View<T, 2>& target, bool nontemporal) {
  const auto [n_rows, n_columns] = target.shape;
  const auto [row_step, column_step] = target.strides;
  if (column_step == 1) {
    for (std::int64_t r = 0; r < n_rows; ++r)
      copy_values(rows + r * n_columns, n_columns, target.data + r * row_step, nontemporal);
  } else if (std::abs(column_step) <= std::abs(row_step)) {
    for (std::int64_t r = 0; r < n_rows; ++r) {
      T* out = target.data + r * row_step;
      with_step(column_step, [&, r, n_columns = n_columns](auto step) {
        for (std::int64_t c = 0; c < n_columns; ++c) out[c * step] = rows[r * n_columns + c];
      });
    }
  } else {
    for (std::int64_t c = 0; c < n_columns; ++c) {
      T* out = target.data + c * column_step;
      with_step(row_step, [&, n_rows = n_rows, n_columns = n_columns](auto step) {
        for (std::int64_t r = 0; r < n_rows; ++r) out[r * step] = rows[r * n_columns + c];
      });
    }
  }
}

/// Fills target (D, H, W) row by row: dense rows at once, others through a small buffer, so that
/// both sides are touched a cache line at a time whatever their strides. compute(d, h, row) writes
/// one dense row; axes must be in transfer_order. If `nontemporal`, store_fence() must follow.
template <typename T, typename Compute>
void transfer_rows(const View<T, 3>& target, std::int64_t d, bool nontemporal, Compute&& compute) {
  constexpr std::int64_t kTile =
      64 / static_cast<std::int64_t>(sizeof(T));  // rows that fill one cache line sideways
  const auto [n_d, n_h, n_w] = target.shape;
  if (target.strides[2] == 1 && !nontemporal) {
    for (std::int64_t h = 0; h < n_h; ++h) compute(d, h, target.at(d, h));
    return;
  }
  std::vector<T> buffer(static_cast<std::size_t>(kTile * n_w));
  for (std::int64_t begin = 0; begin < n_h; begin += kTile) {
    const std::int64_t n_rows = std::min(kTile, n_h - begin);
    for (std::int64_t r = 0; r < n_rows; ++r) compute(d, begin + r, buffer.data() + r * n_w);
    const View<T, 2> rows{
        target.at(d, begin), {n_rows, n_w}, {target.strides[1], target.strides[2]}};
    store_rows(buffer.data(), rows, nontemporal);
  }
}

}  // namespace fastbts
