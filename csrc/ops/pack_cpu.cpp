#include <cstdint>

#include "core/array/packed.h"
#include "core/cpu/fusion.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/pack.h"

namespace fastbts {
namespace {

bool is_present(const View<const float, 3>& image, std::int64_t p) {
  for (std::int64_t d = 0; d < image.shape[0]; d += p)
    for (std::int64_t h = 0; h < image.shape[1]; h += p)
      for (std::int64_t w = 0; w < image.shape[2]; w += p)
        if (*image.at(d, h, w) != 0) return true;
  return false;
}

void find_gains(const PackArgs& args) {
  const auto volume = args.volume.as<float>();
  const std::int64_t n_m = volume.shape[1];
  for (std::int64_t b = 0; b < volume.shape[0]; ++b) {
    for (std::int64_t m = 0; m < n_m; ++m)
      *args.scratch.at(0, b, m) = is_present(volume.slice(b).slice(m), args.patch) ? 1.0F : 0.0F;
    for (std::int64_t m = 0; m < n_m; ++m)
      *args.scratch.at(1, b, m) = gain_of(args.gate, args.gate_bias, m, args.scratch.at(0, b));
  }
}

/// Every p-th value of a row.
template <typename T, typename Patch, typename Step>
void pack_row(const float* __restrict row, std::int64_t n, Patch p, Step step, Fusion fusion,
              T* __restrict out) {
  for (std::int64_t w = 0; w < n; ++w) out[w * step] = fused<T>(row[w * p], fusion);
}

/// Row i of all rows of the volume, (b, m, d, h).
template <typename T, typename Patch>
void pack_voxels(const PackArgs& args, std::int64_t i, Patch p) {
  const auto volume = args.volume.as<float>();
  const auto out = args.out.as<T>();
  const std::int64_t n_h = volume.shape[3], n_d = volume.shape[2], n_m = volume.shape[1];
  const std::int64_t h = i % n_h, d = i / n_h % n_d, m = i / n_h / n_d % n_m,
                     b = i / n_h / n_d / n_m;
  Fusion fusion{1, 0, args.step};
  if (args.gate.data) fusion = {*args.scratch.at(1, b, m), *args.background.at(m), args.step};
  const std::int64_t first = channel_of(m, {d, h, 0}, p);
  const float* row = volume.at(b, m, d, h);
  with_step(out.strides[3], [&](auto step) {
    for (std::int64_t child = 0; child < p; ++child) {
      T* const to = out.at(b, d / p, h / p, 0, first + child);
      pack_row(row + child, out.shape[3], p, step, fusion, to);
    }
  });
}

}  // namespace

void pack_cpu(const PackArgs& args, int n_threads) {
  if (args.gate.data) find_gains(args);
  const Shape<5>& n = args.volume.shape;
  const auto rows = [&](auto type, auto patch) {
    using T = typename decltype(type)::type;
    parallel_for(n[0] * n[1] * n[2] * n[3], n_threads, [&](std::int64_t begin, std::int64_t end) {
      wide([&] {
        for (std::int64_t i = begin; i < end; ++i) pack_voxels<T>(args, i, patch);
      });
    });
  };
  const auto all = [&](auto type) {
    args.patch == 1 ? rows(type, std::integral_constant<std::int64_t, 1>{})
                    : rows(type, std::integral_constant<std::int64_t, 2>{});
  };
  dispatch_packed(args.out.dtype, all);
}

}  // namespace fastbts
