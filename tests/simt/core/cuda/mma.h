#pragma once

#include "core/cuda/kernel.h"

/// In place of csrc/core/cuda/mma.h under the emulation: see there. Lanes show each other addresses
/// of their registers. A copy is done when its thread waits for it, so a kernel that does not wait
/// reads NaN or old values.
namespace fastbts {

inline std::uint32_t packed(float first, float second) {
  const Half pair[2] = {static_cast<Half>(first), static_cast<Half>(second)};
  std::uint32_t result;
  std::memcpy(&result, pair, sizeof(result));
  return result;
}
inline void unpack(std::uint32_t pair, float& first, float& second) {
  Half values[2];
  std::memcpy(values, &pair, sizeof(pair));
  first = static_cast<float>(values[0]);
  second = static_cast<float>(values[1]);
}

inline void require_aligned(const void* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16)
    throw simt::KernelError("an address that is not a multiple of 16 bytes");
}

inline void load_matrices(const Half* row, std::uint32_t (&r)[4]) {
  require_aligned(row);
  simt::meet(kAllLanes, row, [&](const std::uint64_t* slots) {
    const unsigned lane = simt::lane();
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
      const Half* shown;
      std::memcpy(&shown, slots + 8 * matrix + lane / 4, sizeof(shown));
      std::memcpy(&r[matrix], shown + 2 * (lane % 4), sizeof(r[matrix]));
    }
    return 0;
  });
}

/// The registers of one lane for a product.
struct Operands {
  Half a[8];  // a[2 i], a[2 i + 1]: register i
  Half b[4];
};

inline void multiply_add(const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         float (&c)[4]) {
  Operands mine;
  std::memcpy(mine.a, a, sizeof(mine.a));
  std::memcpy(mine.b, &b0, sizeof(b0));
  std::memcpy(mine.b + 2, &b1, sizeof(b1));
  const Operands* const shown = &mine;
  simt::meet(kAllLanes, shown, [&](const std::uint64_t* slots) {
    const auto of = [&](unsigned lane) {
      const Operands* other;
      std::memcpy(&other, slots + lane, sizeof(other));
      return other;
    };
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned lane = simt::lane(), row = lane / 4, column = 2 * (lane % 4) + i % 2;
      for (unsigned k = 0; k < 16; ++k) {
        // Rows 8 on are in registers 1 and 3 of a, columns k >= 8 in 2 and 3.
        const Half left = of(4 * row + k % 8 / 2)->a[2 * (i / 2 + 2 * (k / 8)) + k % 2],
                   right = of(4 * column + k % 8 / 2)->b[2 * (k / 8) + k % 2];
        c[i] += static_cast<float>(left) * static_cast<float>(right);
      }
    }
    return 0;
  });
}

inline void copy_async(void* shared, const void* global) {
  require_aligned(shared);
  require_aligned(global);
  simt::block().current->copies.push_back({shared, global});
}

inline void commit_copies() {
  simt::Fiber& me = *simt::block().current;
  me.groups.push_back(std::move(me.copies));
  me.copies.clear();
}

template <int kGroups>
inline void wait_copies() {
  auto& groups = simt::block().current->groups;
  while (groups.size() > kGroups) {
    for (const auto& [shared, global] : groups.front()) std::memcpy(shared, global, 16);
    groups.erase(groups.begin());
  }
}

}  // namespace fastbts
