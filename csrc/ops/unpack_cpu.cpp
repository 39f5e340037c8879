#include <cstddef>
#include <vector>

#include "core/array/dense.h"
#include "core/cpu/memory.h"
#include "core/cpu/packed_rows.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "ops/unpack.h"

namespace fastbts {
namespace {

/// Case b as channels (K p^3, D/p, H/p, W/p).
template <typename T>
PackedRows<T> rows_of(const UnpackArgs& args, std::int64_t b) {
  const auto x = args.x.as<T>().slice(b);
  const auto& [d, h, w, c] = x.shape;
  const auto& [step_d, step_h, step_w, step_c] = x.strides;
  return {{x.data, {c, d, h, w}, {step_c, step_d, step_h, step_w}, x.device}, args.patch};
}

/// Row i of all rows of out, (b, k, d, h); `row` is a buffer for it.
template <typename T>
void unpack_voxels(const UnpackArgs& args, std::int64_t i, std::vector<float>& row,
                   bool nontemporal) {
  const auto& out = args.out;
  const std::int64_t n_h = out.shape[3], n_d = out.shape[2], n_k = out.shape[1];
  const std::int64_t h = i % n_h, d = i / n_h % n_d, k = i / n_h / n_d % n_k,
                     b = i / n_h / n_d / n_k;
  const float* const voxels = rows_of<T>(args, b).row(k, d, h, row.data());
  copy_values(voxels, out.shape[4], out.at(b, k, d, h), nontemporal);
}

}  // namespace

void unpack_cpu(const UnpackArgs& args, int n_threads) {
  const Shape<5>& n = args.out.shape;
  const bool nontemporal = is_nontemporal(n_elements(n));
  dispatch_float(args.x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    parallel_for(n[0] * n[1] * n[2] * n[3], n_threads, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(n[4]));
      wide([&] {
        for (std::int64_t i = begin; i < end; ++i) unpack_voxels<T>(args, i, row, nontemporal);
      });
      store_fence();
    });
  });
}

}  // namespace fastbts
