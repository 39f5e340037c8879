#include "core/cpu/panel.h"

#include <cstring>

#include "core/cpu/memory.h"
#include "core/cpu/wide.h"

namespace fastbts {
namespace {

/// Numbers as a machine holds them in one register. Left to the optimiser, GCC 12 mixed the lanes
/// of the rows, at a tenth of the speed.
#ifdef __GNUC__
using Vector4 = float __attribute__((vector_size(16)));
using Vector8 = float __attribute__((vector_size(32)));
using Vector16 = float __attribute__((vector_size(64)));
#else
using Vector4 = float;
#endif

constexpr std::int64_t kGroup = PanelMatrix::kGroup;
constexpr std::int64_t kAhead =
    2 * kLanes;  // how far on to fetch: hides memory behind the sums of two panels

/// Some rows of the product, of a group or of two; `Vector` and how many sums have registers depend
/// on the instruction set. A macro, as the vectors of a template would be cut up for the plain
/// machine before it is inlined for another.
#define FASTBTS_MULTIPLY_ROWS(name, Vector, kRows)                                               \
  void name(const float* weights, std::int64_t n_columns, const float* const* columns,           \
            std::int64_t first, const float* bias, float* out, std::int64_t out_step) {          \
    constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float), kVectors = kLanes / kWidth;  \
    Vector sums[kRows][kVectors], column[kVectors];                                              \
    for (std::int64_t r = 0; r < kRows; ++r)                                                     \
      for (std::int64_t v = 0; v < kVectors; ++v) sums[r][v] = Vector{} + bias[r];               \
    for (std::int64_t c = 0; c < n_columns; ++c) {                                               \
      const float* const lanes = columns[c] + first;                                             \
      prefetch(lanes + kAhead);                                                                  \
      for (std::int64_t v = 0; v < kVectors; ++v)                                                \
        std::memcpy(column + v, lanes + v * kWidth, sizeof(Vector));                             \
      for (std::int64_t r = 0; r < kRows; ++r)                                                   \
        for (std::int64_t v = 0; v < kVectors; ++v)                                              \
          sums[r][v] += weights[(r / kGroup * n_columns + c) * kGroup + r % kGroup] * column[v]; \
    }                                                                                            \
    for (std::int64_t r = 0; r < kRows; ++r)                                                     \
      for (std::int64_t v = 0; v < kVectors; ++v)                                                \
        std::memcpy(out + r * out_step + first + v * kWidth, &sums[r][v], sizeof(Vector));       \
  }                                                                                              \
  static_assert(kRows % kGroup == 0 || kGroup % kRows == 0)

FASTBTS_MULTIPLY_ROWS(multiply_plain, Vector4, 2);
#ifdef FASTBTS_X86
FASTBTS_FOR("avx2") FASTBTS_MULTIPLY_ROWS(multiply_avx2, Vector8, 4);
FASTBTS_FOR("avx512f") FASTBTS_MULTIPLY_ROWS(multiply_avx512, Vector16, 8);
FASTBTS_FOR("avx512f") FASTBTS_MULTIPLY_ROWS(multiply_twice_avx512, Vector16, 16);
#endif

struct Kernel {
  decltype(&multiply_plain) multiply;
  std::int64_t n_rows;
};

/// The kernel for the next of n rows, a multiple of kGroup.
Kernel kernel_for([[maybe_unused]] std::int64_t n) {
#ifdef FASTBTS_X86
  if (isa() == Isa::kAvx512)
    return n < 16 ? Kernel{multiply_avx512, 8} : Kernel{multiply_twice_avx512, 16};
  if (isa() == Isa::kAvx2) return {multiply_avx2, 4};
#endif
  return {multiply_plain, 2};
}

}  // namespace

void PanelMatrix::multiply(const float* const* columns, std::int64_t n, const float* bias,
                           float* out, std::int64_t out_step) const {
  for (std::int64_t first = 0; first < n; first += kLanes) {
    for (std::int64_t row = 0; row < n_rows_;) {
      const Kernel kernel = kernel_for(n_rows_ - row);
      const float* weights = values_.data() + row / kGroup * kGroup * n_columns_ + row % kGroup;
      kernel.multiply(weights, n_columns_, columns, first, bias + row, out + row * out_step,
                      out_step);
      row += kernel.n_rows;
    }
  }
}

}  // namespace fastbts
