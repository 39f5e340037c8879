/// Drives core/cpu/parallel.h as no op does; tests/ops/test_parallel.py compiles and runs it.
#include "core/cpu/parallel.h"

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <stdexcept>

#ifdef NO_THREADS  // a machine that gives none
extern "C" int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) noexcept {
  return EAGAIN;
}
#endif

/// Whether n ranges of a loop run at the same time: each waits for all others, so they could not
/// finish one after another.
bool meet(int n) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  std::atomic<int> n_there{0}, n_met{0};
  fastbts::parallel_for(n, n, [&](std::int64_t, std::int64_t) {
    ++n_there;
    while (n_there < n && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    n_met += n_there == n;
  });
  return n_met == n;
}

int main() {
#ifndef NO_THREADS
  for (const int n : {2, 3}) {
    for (int turn = 0; turn < 10; ++turn)
      if (!meet(n)) return 7;
  }
#endif
  for (const std::int64_t n : {0, 1, 2, 7, 100}) {
    for (const int n_threads : {0, 1, 2, 3, 200}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
      fastbts::parallel_for(n, n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (const auto& count : visits)
        if (count != 1) return 1;
    }
  }
  // Many loops, some with loops inside: every item of each once, whenever a late thread starts.
  for (const int n_threads : {1, 2, 5}) {
    for (int turn = 0; turn < 500; ++turn) {
      const std::int64_t n = turn % 37;
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
      fastbts::parallel_for(n, n_threads, [&](std::int64_t begin, std::int64_t end) {
        const auto visit = [&](std::int64_t a, std::int64_t b) {
          for (std::int64_t i = begin + a; i < begin + b; ++i)
            ++visits[static_cast<std::size_t>(i)];
        };
        turn % 100 == 0 ? fastbts::parallel_for(end - begin, 2, visit) : visit(0, end - begin);
      });
      for (const auto& count : visits)
        if (count != 1) return 3;
    }
  }
  const int n_cpus = fastbts::n_available_cpus();
  for (const int limit : {1, 1 << 20, 0}) {  // of a container; the last one is none
    fastbts::cpu_limit = limit;
    if (fastbts::n_available_cpus() != (limit == 1 ? 1 : n_cpus)) return 4;
  }
  std::atomic<int> finished{0};
  try {
    fastbts::parallel_for(3, 3, [&](std::int64_t begin, std::int64_t) {
      if (begin == 2) throw std::runtime_error("from a worker");
      ++finished;
    });
  } catch (const std::runtime_error& error) {
    std::printf("%s after %d others, %d cpus", error.what(), finished.load(), n_cpus);
    return 0;
  }
  return 2;
}
