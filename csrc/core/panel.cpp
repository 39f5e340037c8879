#include "core/panel.h"

#include <cstring>

#include "core/wide.h"

namespace fastbts {
namespace {

/// Numbers as a machine holds them in one register. Left to the optimiser, GCC 12 mixed the lanes of the rows, at a
/// tenth of the speed.
#ifdef __GNUC__
using Vector4 = float __attribute__((vector_size(16)));
using Vector8 = float __attribute__((vector_size(32)));
using Vector16 = float __attribute__((vector_size(64)));
#else
using Vector4 = float;
#endif

/// Some rows of a group of the product; `Vector` and how many rows have registers depend on the instruction set. A
/// macro, as the vectors of a template would be cut up for the plain machine before it is inlined for another.
#define FASTBTS_MULTIPLY_ROWS(name, Vector, kRows)                                                                  \
  void name(const float* weights, std::int64_t n_columns, const float* panel, const std::int64_t* steps,            \
            const float* bias, float* out, std::int64_t out_step) {                                                 \
    constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float), kVectors = kLanes / kWidth;                     \
    Vector sums[kRows][kVectors], column[kVectors];                                                                 \
    for (std::int64_t r = 0; r < kRows; ++r)                                                                        \
      for (std::int64_t v = 0; v < kVectors; ++v) sums[r][v] = Vector{} + bias[r];                                  \
    for (std::int64_t c = 0; c < n_columns; ++c) {                                                                  \
      for (std::int64_t v = 0; v < kVectors; ++v)                                                                   \
        std::memcpy(column + v, panel + steps[c] + v * kWidth, sizeof(Vector));                                     \
      for (std::int64_t r = 0; r < kRows; ++r)                                                                      \
        for (std::int64_t v = 0; v < kVectors; ++v) sums[r][v] += weights[c * PanelMatrix::kGroup + r] * column[v]; \
    }                                                                                                               \
    for (std::int64_t r = 0; r < kRows; ++r)                                                                        \
      for (std::int64_t v = 0; v < kVectors; ++v)                                                                   \
        std::memcpy(out + r * out_step + v * kWidth, &sums[r][v], sizeof(Vector));                                  \
  }                                                                                                                 \
  static_assert(kRows <= PanelMatrix::kGroup)

FASTBTS_MULTIPLY_ROWS(multiply_plain, Vector4, 2);
#ifdef FASTBTS_X86
FASTBTS_FOR("avx2") FASTBTS_MULTIPLY_ROWS(multiply_avx2, Vector8, 4);
FASTBTS_FOR("avx512f") FASTBTS_MULTIPLY_ROWS(multiply_avx512, Vector16, 8);
#endif

struct Kernel {
  decltype(&multiply_plain) multiply;
  std::int64_t n_rows;
};

Kernel best_kernel() {
#ifdef FASTBTS_X86
  if (isa() == Isa::kAvx512) return {multiply_avx512, 8};
  if (isa() == Isa::kAvx2) return {multiply_avx2, 4};
#endif
  return {multiply_plain, 2};
}

}  // namespace

void PanelMatrix::multiply(const float* panel, const std::int64_t* steps, const float* bias, float* out,
                           std::int64_t out_step) const {
  const Kernel kernel = best_kernel();
  for (std::int64_t row = 0; row < n_rows_; row += kernel.n_rows) {
    const float* weights = values_.data() + row / kGroup * kGroup * n_columns_ + row % kGroup;
    kernel.multiply(weights, n_columns_, panel, steps, bias + row, out + row * out_step, out_step);
  }
}

}  // namespace fastbts
