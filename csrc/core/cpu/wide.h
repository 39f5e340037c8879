#pragma once

#include <cstdlib>
#include <cstring>

/// Wide vectors where the machine has them, chosen at run time. Vectors of any length give the same
/// bits: products and sums stay separate (-ffp-contract=off), and sums keep their order.
#if defined(__x86_64__) && defined(__GNUC__)
#define FASTBTS_X86
#define FASTBTS_AVX2 __attribute__((target("avx2"), flatten))
#else
#define FASTBTS_AVX2
#endif

namespace fastbts {

/// Whether `wide` uses AVX2: if this machine has it, and FASTBTS_ISA (for tests) is not "plain".
inline bool has_avx2() {
#ifdef FASTBTS_X86
  static const bool has = [] {
    const char* wanted = std::getenv("FASTBTS_ISA");
    return (!wanted || std::strcmp(wanted, "plain") != 0) && __builtin_cpu_supports("avx2");
  }();
  return has;
#else
  return false;
#endif
}

/// The instruction set of the loops: "avx2" or "plain".
inline const char* isa_name() { return has_avx2() ? "avx2" : "plain"; }

template <typename Fn>
FASTBTS_AVX2 void with_avx2(const Fn& fn) {
  fn();
}

/// Calls fn, which is compiled twice with all its calls inlined: for loops over a row that the
/// compiler can vectorise. Their outputs must be known not to overlap their inputs, by __restrict
/// or by being a local copy.
template <typename Fn>
void wide(const Fn& fn) {
  has_avx2() ? with_avx2(fn) : fn();
}

}  // namespace fastbts
