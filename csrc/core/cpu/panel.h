#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbts {

/// Voxels that a panel holds side by side.
constexpr std::int64_t kLanes = 16;

/// The columns of panels whose channels lie one `step` apart.
inline std::vector<const float*> columns_of(const float* first, std::int64_t n_columns,
                                            std::int64_t step) {
  std::vector<const float*> columns;
  for (std::int64_t c = 0; c < n_columns; ++c) columns.push_back(first + c * step);
  return columns;
}

/// A matrix laid out for products with panels. A panel is the channels of kLanes voxels: column c
/// is kLanes numbers from columns[c] + first on. A product runs through it once per group of rows,
/// or per two, with the sums in registers.
class PanelMatrix {
 public:
  static constexpr std::int64_t kGroup =
      8;  // rows that are summed together: as many sums hide the time of an addition

  PanelMatrix(std::int64_t n_rows, std::int64_t n_columns)
      : n_rows_((n_rows + kGroup - 1) / kGroup * kGroup),
        n_columns_(n_columns),
        values_(static_cast<std::size_t>(n_rows_ * n_columns)) {}

  /// Sets n columns of a row from this one on.
  void set(std::int64_t row, std::int64_t column, const float* values, std::int64_t n) {
    float* out = values_.data() + (row / kGroup * n_columns_ + column) * kGroup + row % kGroup;
    for (std::int64_t c = 0; c < n; ++c) out[c * kGroup] = values[c];
  }

  /// Rows, padded with zeros to whole groups; as many must bias and out have.
  std::int64_t n_rows() const { return n_rows_; }
  std::int64_t n_columns() const { return n_columns_; }

  /// out (rows, n) = bias + matrix (panels of n voxels from columns on); row r of out begins at out
  /// + r out_step. Whole panels are read and written where n is none. Each sum runs in the order of
  /// columns, each product rounded.
  void multiply(const float* const* columns, std::int64_t n, const float* bias, float* out,
                std::int64_t out_step) const;

 private:
  std::int64_t n_rows_, n_columns_;
  std::vector<float> values_;
};

}  // namespace fastbts
