#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "core/array/error.h"

namespace fastbts {

/// CPUs that the quota of a container allows; 0 for no quota. Python reads it and sets it once.
inline std::atomic<int> cpu_limit{0};

/// CPUs this process may run on; fewer than the machine has inside a container or under taskset.
inline int n_available_cpus() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) n = CPU_COUNT(&set);
#endif
  const int limit = cpu_limit;
  return std::max(1, limit > 0 ? std::min(n, limit) : n);
}

/// How many threads n_threads stands for: 0 means every available CPU.
inline std::int64_t n_workers_of(int n_threads) {
  require<OptionsError>(n_threads >= 0, "n_threads: expected 0 (all CPUs) or more, got ",
                        n_threads);
  return n_threads ? n_threads : n_available_cpus();
}

/// The tasks 0 to n - 1, which several threads take one by one. `task` must not throw; it is called
/// only while some task is not done, so a thread that starts late may outlive it.
class Tasks {
 public:
  Tasks(std::int64_t n, const std::function<void(std::int64_t)>& task) : n_(n), task_(task) {}

  /// Does tasks until all are taken.
  void work() {
    for (std::int64_t i = next_++; i < n_; i = next_++) {
      task_(i);
      ++n_done_;
    }
  }

  /// Waits for the tasks that other threads took.
  void wait() const {
    while (n_done_ < n_) std::this_thread::yield();
  }

 private:
  std::int64_t n_;
  const std::function<void(std::int64_t)>& task_;
  std::atomic<std::int64_t> next_{0}, n_done_{0};
};

/// Calls task(i), which must not throw, for all i in [0, n) on n_workers threads, the calling one
/// among them. It does not wait for a thread that has no task: on a busy machine it may
/// take milliseconds until a new one runs at all. If the system gives no more threads or memory for
/// them, fewer do the work.
inline void run_tasks(std::int64_t n, std::int64_t n_workers,
                      const std::function<void(std::int64_t)>& task) {
  const auto tasks = std::make_shared<Tasks>(n, task);
  try {
    for (std::int64_t i = 1; i < std::min(n_workers, n); ++i)
      std::thread([tasks] { tasks->work(); }).detach();
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {  // leaving now would free the task under the threads
  }
  tasks->work();
  tasks->wait();
}

/// Splits [0, n) into contiguous ranges, a few per thread, and calls fn(begin, end) on each;
/// returns when all are done.
///
/// As starting a thread takes about 0.1 ms, ranges have at least `grain` items; each thread takes
/// the next range when it is ready. Where the cuts fall depends on n_threads, so fn must give
/// results that do not depend on them. The first exception of a range is rethrown here.
template <typename Fn>
void parallel_for(std::int64_t n, int n_threads, Fn&& fn, std::int64_t grain = 1) {
  const std::int64_t n_workers =
      std::max<std::int64_t>(1, std::min(n / grain, n_workers_of(n_threads)));
  const std::int64_t n_ranges = n_workers == 1 ? 1 : std::min(n / grain, 4 * n_workers);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n_ranges));
  run_tasks(n_ranges, n_workers, [&](std::int64_t i) {
    try {
      fn(n * i / n_ranges, n * (i + 1) / n_ranges);
    } catch (...) {
      errors[static_cast<std::size_t>(i)] = std::current_exception();
    }
  });
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fastbts
