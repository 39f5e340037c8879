#pragma once

#include <cstdlib>
#include <cstring>

/// Wide vectors where the machine has them, chosen at run time. Vectors of any length give the same
/// bits: products and sums stay separate (-ffp-contract=off), and sums keep their order.
#if defined(__x86_64__) && defined(__GNUC__)
#define FASTBTS_X86
#define FASTBTS_FOR(isa) __attribute__((target(isa), flatten))
#else
#define FASTBTS_FOR(isa)
#endif

namespace fastbts {

enum class Isa { kPlain, kAvx2, kAvx512 };

/// The best instruction set that this machine has and FASTBTS_ISA ("plain", "avx2") allows, which
/// is for tests.
inline Isa isa() {
  static const Isa best = [] {
    const char* wanted = std::getenv("FASTBTS_ISA");
    [[maybe_unused]] const auto allows = [&](const char* name) {
      return !wanted || std::strcmp(wanted, name) == 0;
    };
#ifdef FASTBTS_X86
    if (allows("avx512") && __builtin_cpu_supports("avx512f")) return Isa::kAvx512;
    if ((allows("avx512") || allows("avx2")) && __builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
    return Isa::kPlain;
  }();
  return best;
}

inline const char* isa_name() {
  constexpr const char* kNames[] = {"plain", "avx2", "avx512"};
  return kNames[static_cast<int>(isa())];
}

template <typename Fn>
FASTBTS_FOR("avx2")
void with_avx2(const Fn& fn) {
  fn();
}

/// Calls fn, compiled twice with all that it calls inlined: for loops over a row that the compiler
/// can vectorise. What they write must be known to overlap nothing else, by __restrict or by being
/// a local copy.
template <typename Fn>
void wide(const Fn& fn) {
  isa() == Isa::kPlain ? fn() : with_avx2(fn);
}

}  // namespace fastbts
