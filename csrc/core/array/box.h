#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>

#include "core/array/error.h"

namespace fastbts {

template <std::size_t N>
using Shape = std::array<std::int64_t, N>;

/// Half-open bounds [begin, end) in voxels along one axis.
struct Bounds {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  bool contains(std::int64_t i) const { return begin <= i && i < end; }
};

/// Bounds along D, H, W.
using Box = std::array<Bounds, 3>;

inline Shape<3> size_of(const Box& box) { return {box[0].size(), box[1].size(), box[2].size()}; }

inline std::ostream& operator<<(std::ostream& out, const Bounds& bounds) {
  return out << bounds.begin << ":" << bounds.end;
}

/// Throws unless the box is inside the last three axes of an array.
template <std::size_t N>
void require_inside(const Box& box, const Shape<N>& shape, const char* box_name,
                    const char* array_name) {
  for (std::size_t i = 0; i < 3; ++i) {
    const bool inside =
        0 <= box[i].begin && box[i].begin <= box[i].end && box[i].end <= shape[N - 3 + i];
    require<OptionsError>(inside, box_name, ": expected to be inside ", array_name, " of shape ",
                          shape, ", got ", box);
  }
}

}  // namespace fastbts
