#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbts {

/// Voxels that a panel holds side by side.
constexpr std::int64_t kLanes = 8;

/// A matrix laid out for products with panels. A panel is (columns, kLanes): the channels of kLanes voxels, copied
/// together so that a product runs through it once per group of rows, with the sums in registers.
class PanelMatrix {
 public:
  static constexpr std::int64_t kGroup = 8;  // rows that are summed together: as many sums hide the time of an addition

  PanelMatrix(std::int64_t n_rows, std::int64_t n_columns)
      : n_rows_((n_rows + kGroup - 1) / kGroup * kGroup),
        n_columns_(n_columns),
        values_(static_cast<std::size_t>(n_rows_ * n_columns)) {}

  float& at(std::int64_t row, std::int64_t column) {
    return values_[static_cast<std::size_t>((row / kGroup * n_columns_ + column) * kGroup + row % kGroup)];
  }

  /// Rows, padded with zeros to whole groups; as many must bias and out have.
  std::int64_t n_rows() const { return n_rows_; }
  std::int64_t n_columns() const { return n_columns_; }

  /// out (rows, kLanes) = bias + matrix panel; each sum runs in the order of columns, each product rounded.
  void multiply(const float* panel, const float* bias, float* out) const;

 private:
  std::int64_t n_rows_, n_columns_;
  std::vector<float> values_;
};

}  // namespace fastbts
