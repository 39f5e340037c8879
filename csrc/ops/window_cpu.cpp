#include <algorithm>

#include "core/array/dense.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"
#include "ops/window.h"

namespace fastbts {
namespace {

/// Copies row[origin, origin + n) of a row of `size` values, zero where there is none; row may be
/// null: all zero.
void copy_row(const float* row, std::int64_t size, std::int64_t origin, std::int64_t n,
              std::int64_t step, float* out, bool nontemporal) {
  const std::int64_t begin = row ? std::clamp<std::int64_t>(-origin, 0, n) : n;
  const std::int64_t end = std::clamp<std::int64_t>(size - origin, begin, n);
  if (step != 1) {
    for (std::int64_t w = 0; w < n; ++w)
      out[w * step] = begin <= w && w < end ? row[origin + w] : 0.0F;
    return;
  }
  std::fill(out, out + begin, 0.0F);
  if (end > begin) copy_values(row + origin + begin, end - begin, out + begin, nontemporal);
  std::fill(out + end, out + n, 0.0F);
}

void copy_slice(const WindowArgs& args, std::int64_t b, std::int64_t m, std::int64_t d,
                bool nontemporal) {
  const auto tensor = args.tensor.as<float>();
  const auto out = args.out.as<float>();
  const auto [n_modalities, size_d, size_h, size_w] = tensor.shape;
  const auto origin = [&](std::int64_t axis) -> std::int64_t { return *args.origins.at(b, axis); };
  const std::int64_t from_d = origin(0) + d;
  for (std::int64_t h = 0; h < out.shape[3]; ++h) {
    const std::int64_t from_h = origin(1) + h;
    const bool inside = Bounds{0, size_d}.contains(from_d) && Bounds{0, size_h}.contains(from_h);
    const float* row = inside ? tensor.at(m, from_d, from_h) : nullptr;
    copy_row(row, size_w, origin(2), out.shape[4], out.strides[4], out.at(b, m, d, h), nontemporal);
  }
}

}  // namespace

void window_cpu(const WindowArgs& args, int n_threads) {
  const std::int64_t n_m = args.out.shape[1], n_d = args.out.shape[2];
  const bool nontemporal = is_nontemporal(n_elements(args.out.shape));
  parallel_for(args.out.shape[0] * n_m * n_d, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      copy_slice(args, i / (n_m * n_d), i / n_d % n_m, i % n_d, nontemporal);
    store_fence();
  });
}

}  // namespace fastbts
