#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "core/error.h"

namespace fastbts {

/// CPUs this process may run on; fewer than the machine has inside a container or under taskset.
inline int n_available_cpus() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Splits [0, n) into contiguous ranges, a few per thread, and calls fn(begin, end) on each; returns when all are done.
///
/// Threads live for one call: no pool that idles, no spinning that takes CPU from the inference runtime. As starting
/// one takes about 0.1 ms, ranges have at least `grain` items, and each thread takes the next range when it is ready.
/// n_threads = 0 means every available CPU. Where the cuts fall depends on n_threads, so fn must give results that do
/// not depend on them. The first exception of a range is rethrown here.
template <typename Fn>
void parallel_for(std::int64_t n, int n_threads, Fn&& fn, std::int64_t grain = 1) {
  require<OptionsError>(n_threads >= 0, "n_threads: expected 0 (all CPUs) or more, got ", n_threads);
  const std::int64_t wanted = n_threads ? n_threads : n_available_cpus();
  const std::int64_t n_workers = std::max<std::int64_t>(1, std::min(n / grain, wanted));
  const std::int64_t n_ranges = n_workers == 1 ? 1 : std::min(n / grain, 4 * n_workers);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n_ranges));
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t i = next++; i < n_ranges; i = next++) {
      try {
        fn(n * i / n_ranges, n * (i + 1) / n_ranges);
      } catch (...) {
        errors[static_cast<std::size_t>(i)] = std::current_exception();
      }
    }
  };
  {
    struct Joined {  // joins also when starting a thread throws
      std::vector<std::thread> threads;
      ~Joined() {
        for (auto& thread : threads) thread.join();
      }
    } joined;
    for (std::int64_t worker = 1; worker < n_workers; ++worker) joined.threads.emplace_back(work);
    work();
  }
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fastbts
