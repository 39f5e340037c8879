#include <cstddef>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/bfloat16.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/unpack.h"

namespace fastbts {
namespace {

/// A row of voxels from p rows of channels.
template <typename T, typename Patch, typename Step>
void unpack_row(const T* __restrict x, std::int64_t n, Patch p, Step step, std::int64_t channel,
                float* __restrict row) {
  for (std::int64_t w = 0; w < n; ++w)
    for (std::int64_t child = 0; child < p; ++child)
      row[w * p + child] = to_float(x[w * step + child * channel]);
}

/// Row i of all rows of out, (b, k, d, h); `row` is a buffer for it.
template <typename T, typename Patch>
void unpack_voxels(const UnpackArgs& args, std::int64_t i, Patch p, std::vector<float>& row,
                   bool nontemporal) {
  const auto x = args.x.as<T>();
  const auto& out = args.out;
  const std::int64_t n_h = out.shape[3], n_d = out.shape[2], n_k = out.shape[1];
  const std::int64_t h = i % n_h, d = i / n_h % n_d, k = i / n_h / n_d % n_k,
                     b = i / n_h / n_d / n_k;
  const std::int64_t first = ((k * p + d % p) * p + h % p) * p;
  with_step(x.strides[3], [&](auto step) {
    unpack_row(x.at(b, d / p, h / p, 0, first), x.shape[3], p, step, x.strides[4], row.data());
  });
  copy_values(row.data(), out.shape[4], out.at(b, k, d, h), nontemporal);
}

}  // namespace

void unpack_cpu(const UnpackArgs& args, int n_threads) {
  const Shape<5>& n = args.out.shape;
  const bool nontemporal = is_nontemporal(n_elements(n));
  const auto rows = [&](auto type, auto patch) {
    using T = typename decltype(type)::type;
    parallel_for(n[0] * n[1] * n[2] * n[3], n_threads, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(n[4]));
      wide([&] {
        for (std::int64_t i = begin; i < end; ++i)
          unpack_voxels<T>(args, i, patch, row, nontemporal);
      });
      store_fence();
    });
  };
  dispatch_float(args.x.dtype, [&](auto type) {
    args.patch == 1 ? rows(type, std::integral_constant<std::int64_t, 1>{})
                    : rows(type, std::integral_constant<std::int64_t, 2>{});
  });
}

}  // namespace fastbts
