#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "core/array/error.h"

namespace fastbts {

/// CPUs this process may run on; fewer than the machine has inside a container or under taskset.
inline int n_available_cpus() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Threads that take tasks side by side with the one that has them. They start with the first tasks
/// and end with the team, which is one call of an op: no pool that idles. Between two loops of the
/// op they yield, so the loops should follow each other closely. Nobody waits for a thread that has
/// no task: on a busy machine it may take milliseconds until one runs at all. Such a late one ends
/// by itself when it sees that the team is gone.
class Team {
 public:
  using Task = std::function<void(std::int64_t)>;

  /// A team of n_threads, this one among them; until it ends, `parallel_for` on this thread uses
  /// it.
  explicit Team(std::int64_t n_threads) : n_threads_(n_threads), outer_(current_) {
    current_ = this;
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    tasks_->stop();
    current_ = outer_;
  }

  static Team* current() { return current_; }

  /// Calls task(i), which must not throw, for all i in [0, n); returns when all are done.
  void run(std::int64_t n, const Task& task) {
    start(std::min(n_threads_, n));
    const Busy busy(this);  // loops inside of tasks are not for this team
    tasks_->run(n, task);
  }

 private:
  /// What is to be done: outlives the team where a thread is late.
  class Tasks {
   public:
    void run(std::int64_t n, const Task& task) {
      task_ = &task;
      n_ = n;
      n_done_ = 0;
      next_ = (next_ / kTurn + 1) * kTurn;  // opens the turn
      while (take()) continue;
      while (n_done_ < n) std::this_thread::yield();
      next_ = next_ / kTurn * kTurn + kTurn -
              1;  // closes it: nobody takes a task while the next ones are put in place
    }

    /// What a thread of the team does.
    void work() {
      while (!stopped_) {
        if (!take()) std::this_thread::yield();
      }
    }

    void stop() { stopped_ = true; }

   private:
    static constexpr std::uint64_t kTurn = std::uint64_t{1} << 32;

    /// Does the next task of this turn, if there is one.
    bool take() {
      std::uint64_t next = next_;
      const std::int64_t i = static_cast<std::int64_t>(next % kTurn), n = n_;
      const Task* const task = task_;
      if (i >= n) return false;
      // Succeeds only if the turn is still the one that n and task were read in.
      if (next_.compare_exchange_strong(next, next + 1)) {
        (*task)(i);
        ++n_done_;
      }
      return true;
    }

    std::atomic<const Task*> task_{nullptr};
    std::atomic<std::int64_t> n_{0}, n_done_{0};
    std::atomic<std::uint64_t> next_{kTurn - 1};  // turn and next task of it
    std::atomic<bool> stopped_{false};
  };

  struct Busy {
    explicit Busy(Team* team) : team_(team) { current_ = nullptr; }
    ~Busy() { current_ = team_; }
    Team* team_;
  };

  /// Starts threads until there are n; where the machine gives no more, those there are do the
  /// work.
  void start(std::int64_t n) {
    for (; n_started_ < n; ++n_started_) {
      try {
        std::thread([tasks = tasks_] { tasks->work(); }).detach();
      } catch (const std::system_error&) {
        n_threads_ = n_started_;
        return;
      }
    }
  }

  inline static thread_local Team* current_ = nullptr;

  std::int64_t n_threads_, n_started_ = 1;
  Team* outer_;
  std::shared_ptr<Tasks> tasks_ = std::make_shared<Tasks>();
};

/// How many threads n_threads stands for: 0 means every available CPU.
inline std::int64_t n_workers_of(int n_threads) {
  require<OptionsError>(n_threads >= 0, "n_threads: expected 0 (all CPUs) or more, got ",
                        n_threads);
  return n_threads ? n_threads : n_available_cpus();
}

/// Splits [0, n) into contiguous ranges, a few per thread, and calls fn(begin, end) on each;
/// returns when all are done.
///
/// Threads are those of the current `Team`, or of one for this call. As starting one takes about
/// 0.1 ms, ranges have at least `grain` items, with a team an eighth of that; each thread takes the
/// next range when it is ready. Where the cuts fall depends on n_threads, so fn must give results
/// that do not depend on them. The first exception of a range is rethrown here.
template <typename Fn>
void parallel_for(std::int64_t n, int n_threads, Fn&& fn, std::int64_t grain = 1) {
  Team* const team = Team::current();
  if (team != nullptr) grain = std::max<std::int64_t>(1, grain / 8);
  const std::int64_t n_workers =
      std::max<std::int64_t>(1, std::min(n / grain, n_workers_of(n_threads)));
  const std::int64_t n_ranges = n_workers == 1 ? 1 : std::min(n / grain, 4 * n_workers);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n_ranges));
  const Team::Task do_range = [&](std::int64_t i) {
    try {
      fn(n * i / n_ranges, n * (i + 1) / n_ranges);
    } catch (...) {
      errors[static_cast<std::size_t>(i)] = std::current_exception();
    }
  };
  if (n_workers == 1)
    do_range(0);
  else if (team != nullptr)
    team->run(n_ranges, do_range);
  else
    Team(n_workers).run(n_ranges, do_range);
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fastbts
