#pragma once

#include <cstdint>
#include <type_traits>

#include "core/array/packed.h"
#include "core/array/tensor_view.h"
#include "core/cpu/bfloat16.h"

namespace fastbts {

/// A row of n blocks of voxels from p rows of channels.
template <typename T, typename Patch, typename Step>
void unpack_row(const T* __restrict x, std::int64_t n, Patch p, Step step, std::int64_t channel,
                float* __restrict row) {
  for (std::int64_t w = 0; w < n; ++w)
    for (std::int64_t child = 0; child < p; ++child)
      row[w * p + child] = to_float(x[w * step + child * channel]);
}

/// Rows of voxels from packed ones (K p^3, D/p, H/p, W/p), float or Bfloat16 of any strides.
template <typename T>
class PackedRows {
 public:
  PackedRows(const View<const T, 4>& packed, std::int64_t patch) : packed_(packed), p_(patch) {}

  /// Voxels along a row.
  std::int64_t size() const { return packed_.shape[3] * p_; }

  /// The row (d, h) of image k: in place if it is so in memory, else in `buffer`.
  const float* row(std::int64_t k, std::int64_t d, std::int64_t h, float* buffer) const {
    const T* const x = packed_.at(channel_of(k, {d, h, 0}, p_), d / p_, h / p_);
    if constexpr (std::is_same_v<T, float>) {
      if (p_ == 1 && packed_.strides[3] == 1) return x;
    }
    with_step(packed_.strides[3], [&](auto step) {
      p_ == 1 ? unpack(x, std::integral_constant<std::int64_t, 1>{}, step, buffer)
              : unpack(x, std::integral_constant<std::int64_t, 2>{}, step, buffer);
    });
    return buffer;
  }

 private:
  template <typename Patch, typename Step>
  void unpack(const T* x, Patch p, Step step, float* buffer) const {
    unpack_row(x, packed_.shape[3], p, step, packed_.strides[0], buffer);
  }

  View<const T, 4> packed_;
  std::int64_t p_;
};

}  // namespace fastbts
