#pragma once

#include <algorithm>
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

/// Splits [0, n) into one contiguous range per thread and calls fn(begin, end) on each; returns when all are done.
///
/// Threads live for one call: no pool that idles, no spinning that takes CPU from the inference runtime. n_threads = 0
/// means every available CPU. Where the cuts fall depends on n_threads, so fn must give results that do not depend on
/// them. The first exception of a worker is rethrown here.
template <typename Fn>
void parallel_for(std::int64_t n, int n_threads, Fn&& fn) {
  require<OptionsError>(n_threads >= 0, "n_threads: expected 0 (all CPUs) or more, got ", n_threads);
  const std::int64_t wanted = n_threads ? n_threads : n_available_cpus();
  const std::int64_t n_workers = std::max<std::int64_t>(1, std::min(n, wanted));
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n_workers));
  const auto work = [&](std::int64_t worker) {
    try {
      fn(n * worker / n_workers, n * (worker + 1) / n_workers);
    } catch (...) {
      errors[static_cast<std::size_t>(worker)] = std::current_exception();
    }
  };
  {
    struct Joined {  // joins also when starting a thread throws
      std::vector<std::thread> threads;
      ~Joined() {
        for (auto& thread : threads) thread.join();
      }
    } joined;
    for (std::int64_t worker = 1; worker < n_workers; ++worker) joined.threads.emplace_back(work, worker);
    work(0);
  }
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fastbts
