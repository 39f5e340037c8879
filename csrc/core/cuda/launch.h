#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/array/dtype.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/strided.h"

/// What launchers (`*_cuda.cu`) share.
namespace fastbts {

/// Calls fn(Tag<T>{}) with the element type of a network tensor.
template <typename Fn>
void dispatch_floats(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kFloat16:
      return fn(Tag<Half>{});
    case DType::kBfloat16:
      return fn(Tag<Bfloat16>{});
    default:
      return fn(Tag<float>{});
  }
}

/// Blocks of 4 rows, 64 threads along each; at most max_blocks, as kernels go on in steps of the
/// whole grid.
struct RowLaunch {
  RowLaunch(std::int64_t n_rows,
            std::int64_t max_blocks = std::numeric_limits<std::int32_t>::max()) {
    require<OptionsError>(n_rows <= std::numeric_limits<std::int32_t>::max(),
                          "expected fewer than 2^31 rows, got ", n_rows);
    blocks.x = static_cast<unsigned>(std::min((n_rows + threads.y - 1) / threads.y, max_blocks));
  }

  dim3 blocks;
  dim3 threads{64, 4};
};

}  // namespace fastbts
