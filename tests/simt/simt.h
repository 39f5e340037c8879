#pragma once

/// Runs CUDA kernels without a GPU: a host compiler builds the same `*_kernel.cuh`, and
/// simt::launch runs them.
///
/// Every CUDA thread is a fiber that runs until it waits: at a barrier, a warp exchange or an
/// atomic. Which one runs next is chosen by a seed, as is the order of blocks, so that code that
/// lacks a barrier gives other results for other seeds. Dynamic shared memory is filled with NaN
/// before each block. Divergent barriers, lanes outside their own mask and impossible launches are
/// errors. Tensor cores and asynchronous copies are in core/cuda/mma.h. No clocks.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#include "cuda_runtime_api.h"

namespace simt {

constexpr int kWarpSize = 32;
constexpr std::size_t kStackBytes = 64 * 1024, kMaxShared = 48 * 1024;

/// The kernel did what no GPU could do, or what a GPU leaves undefined.
struct KernelError : std::logic_error {
  using std::logic_error::logic_error;
};
/// The launch is one that a GPU refuses.
struct LaunchError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// What a test asks of the launches that follow.
struct Plan {
  unsigned seed = 0;
  bool has_barriers = true;
  std::size_t n_withheld = 0;  // bytes of shared memory that a launch is denied
};
inline Plan plan;

enum class State { kReady, kBlockBarrier, kWarpBarrier, kDone };

struct Fiber {
  ucontext_t context;
  State state;
  dim3 index;
  unsigned linear, mask;  // mask: the lanes it waits for
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* fake_stack = nullptr;
  // Asynchronous copies to shared from global memory: not yet in a group, and groups in order.
  std::vector<std::pair<void*, const void*>> copies;
  std::vector<std::vector<std::pair<void*, const void*>>> groups;
};

/// The block that runs.
struct Block {
  dim3 index, size, grid;
  std::vector<Fiber> fibers;
  std::vector<std::uint64_t> slots;  // one per thread: what a warp exchanges
  std::unique_ptr<char[]> shared;    // of exactly the size asked for, so that ASan sees an overrun
  Fiber* current = nullptr;
  ucontext_t scheduler;
  void* scheduler_fake = nullptr;
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_bytes = 0;
  std::function<void()> kernel;
  std::exception_ptr error;
};

inline Block& block() {
  static thread_local Block instance;
  return instance;
}

/// Returns to the scheduler.
inline void wait_as(State state) {
  Block& b = block();
  Fiber& me = *b.current;
  me.state = state;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(state == State::kDone ? nullptr : &me.fake_stack,
                                 b.scheduler_stack, b.scheduler_bytes);
#endif
  swapcontext(&me.context, &b.scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(me.fake_stack, &b.scheduler_stack, &b.scheduler_bytes);
#endif
}

inline void run_kernel() {
  Block& b = block();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &b.scheduler_stack, &b.scheduler_bytes);
#endif
  try {
    b.kernel();
  } catch (...) {
    b.error = std::current_exception();
  }
  wait_as(State::kDone);
}

inline void resume(Fiber& fiber) {
  Block& b = block();
  b.current = &fiber;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&b.scheduler_fake, fiber.stack.get(), kStackBytes);
#endif
  swapcontext(&b.scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(b.scheduler_fake, nullptr, nullptr);
#endif
  if (b.error) std::rethrow_exception(std::exchange(b.error, nullptr));
}

inline void prepare(Fiber& fiber, unsigned linear) {
  const dim3 size = block().size;
  fiber.state = State::kReady;
  fiber.linear = linear;
  fiber.copies.clear();
  fiber.groups.clear();
  fiber.index = {linear % size.x, linear / size.x % size.y, linear / (size.x * size.y)};
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(fiber.stack.get(),
                                kStackBytes);  // marks of frames that were never left
#endif
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_kernel, 0);
}

/// Resumes the lanes of a mask when all of them have arrived.
inline bool release_warp(std::vector<Fiber>& fibers, Fiber& fiber) {
  const unsigned first = fiber.linear / kWarpSize * kWarpSize;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(fiber.mask >> lane & 1)) continue;
    if (first + lane >= fibers.size() || fibers[first + lane].state == State::kDone)
      throw KernelError("a warp exchange names a lane that has exited");
    const Fiber& other = fibers[first + lane];
    if (other.state != State::kWarpBarrier) return false;
    if (other.mask != fiber.mask)
      throw KernelError("lanes of one warp exchange disagree about the mask");
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane)
    if (fiber.mask >> lane & 1) fibers[first + lane].state = State::kReady;
  return true;
}

inline bool release_block(std::vector<Fiber>& fibers) {
  const auto n = [&](State state) {
    return std::count_if(fibers.begin(), fibers.end(),
                         [&](const Fiber& f) { return f.state == state; });
  };
  if (n(State::kBlockBarrier) == 0 || n(State::kReady) + n(State::kWarpBarrier) > 0) return false;
  if (n(State::kDone) > 0) throw KernelError("__syncthreads() that some threads never reach");
  for (Fiber& fiber : fibers) fiber.state = State::kReady;
  return true;
}

inline void run_block(std::size_t shared_bytes, std::mt19937& random) {
  Block& b = block();
  b.shared.reset(new char[shared_bytes]);
  std::memset(b.shared.get(), 0xFF, shared_bytes);
  std::vector<Fiber*> order;
  for (unsigned i = 0; i < b.fibers.size(); ++i) {
    prepare(b.fibers[i], i);
    order.push_back(&b.fibers[i]);
  }
  const auto done = [](const Fiber& fiber) { return fiber.state == State::kDone; };
  while (!std::all_of(b.fibers.begin(), b.fibers.end(), done)) {
    bool moved = false;
    std::shuffle(order.begin(), order.end(), random);
    const std::uint32_t sleeps = random();  // warps that stay behind: without barriers they drift
    for (Fiber* fiber : order) {
      if (fiber->state != State::kReady) continue;
      if (sleeps >> fiber->linear / kWarpSize % 32 & 1) {
        moved = true;
        continue;
      }
      resume(*fiber);
      moved = true;
    }
    for (Fiber& fiber : b.fibers)
      moved |= fiber.state == State::kWarpBarrier && release_warp(b.fibers, fiber);
    if (!release_block(b.fibers) && !moved) throw KernelError("deadlock: divergent barriers");
  }
}

/// Throws LaunchError for a launch that a GPU refuses.
inline void check(dim3 grid, dim3 size, std::size_t shared_bytes) {
  const auto threads = size.volume();
  if (threads == 0 || threads > 1024 || size.z > 64)
    throw LaunchError("a block has 1 to 1024 threads, at most 64 along z");
  if (grid.volume() == 0 || grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535)
    throw LaunchError("a grid has 1 to 2^31 - 1 blocks along x, to 65535 along y and z");
  if (shared_bytes > kMaxShared) throw LaunchError("a block has at most 48 KiB of shared memory");
}

/// Calls kernel() in each thread of a grid of blocks.
inline void run(unsigned seed, dim3 grid, dim3 size, std::size_t shared_bytes,
                std::function<void()> kernel) {
  check(grid, size, shared_bytes);
  Block& b = block();
  b.size = size;
  b.grid = grid;
  b.fibers = std::vector<Fiber>(size.volume());
  b.slots.assign(size.volume(), 0);
  b.kernel = std::move(kernel);
  std::mt19937 random(seed);
  std::vector<std::uint64_t> order(grid.volume());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  for (const std::uint64_t i : order) {
    b.index = dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                   static_cast<unsigned>(i / grid.x / grid.y));
    run_block(shared_bytes, random);
  }
}

/// Runs kernel(args...) on a grid of blocks, as kernel<<<grid, size, shared_bytes>>>(args...)
/// would.
template <typename... Params, typename... Args>
void launch(unsigned seed, dim3 grid, dim3 size, std::size_t shared_bytes,
            void (*kernel)(Params...), const Args&... args) {
  run(seed, grid, size, shared_bytes, [&] { kernel(args...); });
}

/// A launch in the code of a launcher. One that a GPU refuses is an error of the runtime.
inline void enqueue(const char* name, dim3 grid, dim3 size, std::size_t shared_bytes,
                    cudaStream_t stream, std::function<void()> kernel) {
  const Plan now = plan;
  const std::size_t n_shared = shared_bytes - std::min(shared_bytes, now.n_withheld);
  try {
    check(grid, size, n_shared);
  } catch (const LaunchError& error) {
    last_error = cudaErrorInvalidConfiguration;
    last_message = error.what();
    return;
  }
  launch_on(stream, name, [=] { run(now.seed, grid, size, n_shared, kernel); });
}

}  // namespace simt

#include "simt_device.h"
