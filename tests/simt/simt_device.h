#pragma once

/// What device code sees of the SIMT emulation: the names that CUDA gives it. Included by simt.h.

#define FASTBTS_KERNEL inline
#define FASTBTS_DEVICE inline
#define FASTBTS_SHARED static thread_local
#define FASTBTS_BOUNDS(threads, blocks)
#define FASTBTS_EXPECT_ALIGNED(address, n_bytes) simt::expect_aligned(address, n_bytes)
#define FASTBTS_DYNAMIC_SHARED(T, name) \
  T* const name = reinterpret_cast<T*>(simt::block().shared.get())

#define threadIdx (simt::block().current->index)
#define blockIdx (simt::block().index)
#define blockDim (simt::block().size)
#define gridDim (simt::block().grid)

namespace fastbts {

using Half = _Float16;

/// The upper half of a float, rounded to nearest even.
class Bfloat16 {
 public:
  Bfloat16() = default;
  explicit Bfloat16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const bool nan = value != value;
    bits_ = static_cast<std::uint16_t>(nan ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
  explicit operator float() const {
    const std::uint32_t bits = std::uint32_t{bits_} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

 private:
  std::uint16_t bits_;
};

}  // namespace fastbts

namespace simt {

inline void expect_aligned(const void* address, std::size_t n_bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % n_bytes != 0)
    throw KernelError("an access of " + std::to_string(n_bytes) + " bytes is not aligned");
}

/// Every lane of the mask shows a value and reads what the others show: read(first slot of the
/// warp, lane).
template <typename T, typename Read>
auto meet(unsigned mask, T value, Read&& read) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  Block& b = block();
  Fiber& me = *b.current;
  const unsigned lane = me.linear % kWarpSize;
  if (!(mask >> lane & 1)) throw KernelError("a lane is not in its own mask");
  std::memcpy(&b.slots[me.linear], &value, sizeof(T));
  me.mask = mask;
  wait_as(State::kWarpBarrier);
  const auto result = read(&b.slots[me.linear - lane]);
  wait_as(State::kWarpBarrier);  // nobody shows the next value before all have seen this one
  return result;
}

/// The value of lane `source`, or its own where the mask lacks that lane.
template <typename T>
T exchange(unsigned mask, T value, unsigned source) {
  return meet(mask, value, [&](const std::uint64_t* slots) {
    T other = value;
    if (source < kWarpSize && (mask >> source & 1)) std::memcpy(&other, slots + source, sizeof(T));
    return other;
  });
}

inline unsigned lane() { return block().current->linear % kWarpSize; }

/// Another thread may run before an atomic.
template <typename T, typename Fn>
T atomic(T* target, Fn&& change) {
  wait_as(State::kReady);
  const T old = *target;
  *target = change(old);
  return old;
}

}  // namespace simt

inline void __syncthreads() {
  if (simt::plan.has_barriers) simt::wait_as(simt::State::kBlockBarrier);
}
/// Blocks run one after another, so all that one wrote is visible to the next.
inline void __threadfence() {}
inline void __syncwarp(unsigned mask = 0xFFFFFFFF) { simt::exchange(mask, 0, 0); }
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int = 32) {
  return simt::exchange(mask, value, static_cast<unsigned>(source) % simt::kWarpSize);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32) {
  return simt::exchange(mask, value, simt::lane() ^ static_cast<unsigned>(bits));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int = 32) {
  return simt::exchange(mask, value, simt::lane() + step);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int = 32) {
  return simt::exchange(mask, value, simt::lane() - step);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto vote = static_cast<std::uint64_t>(predicate != 0);
  return simt::meet(mask, vote, [&](const std::uint64_t* slots) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < simt::kWarpSize; ++lane)
      if (mask >> lane & 1) votes |= static_cast<unsigned>(slots[lane]) << lane;
    return votes;
  });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

template <typename T>
T atomicAdd(T* target, T value) {
  return simt::atomic(target, [&](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMin(T* target, T value) {
  return simt::atomic(target, [&](T old) { return std::min(old, value); });
}
template <typename T>
T atomicMax(T* target, T value) {
  return simt::atomic(target, [&](T old) { return std::max(old, value); });
}
template <typename T>
T atomicOr(T* target, T value) {
  return simt::atomic(target, [&](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicCAS(T* target, T expected, T value) {
  return simt::atomic(target, [&](T old) { return old == expected ? value : old; });
}

using std::max;
using std::min;
