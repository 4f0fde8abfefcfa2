// Work cut among XLA's own threads, so that a kernel neither adds threads nor exceeds their number.
//
// parallel_for(pool, parts, body) runs body(part) for part = 0 .. parts - 1 and returns when all are done. The calling
// thread takes part and waits only for parts that are running, so kernels that run at the same time cannot block one
// another. Parts are claimed in order; what a part computes must not depend on who runs it. The first exception that a
// part throws is thrown again by the caller.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace kerasoft {

namespace ffi = ::xla::ffi;

struct Crew {
  std::atomic<int64_t> next{0}, done{0};
  int64_t parts;
  std::mutex mutex;
  std::condition_variable ready;
  std::exception_ptr failure;

  explicit Crew(int64_t parts) : parts(parts) {}

  template <typename Body>
  void work(const Body& body) {
    for (;;) {
      int64_t part = next.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts) return;
      try {
        body(part);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
      }
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == parts) {
        std::lock_guard<std::mutex> lock(mutex);
        ready.notify_all();
      }
    }
  }
};

inline int64_t thread_count(const ffi::ThreadPool& pool) {
  int64_t n = pool.num_threads();
  return n < 1 ? 1 : n;
}

template <typename Body>
void parallel_for(ffi::ThreadPool& pool, int64_t parts, const Body& body) {
  int64_t threads = thread_count(pool);
  if (parts <= 1 || threads <= 1) {
    for (int64_t part = 0; part < parts; ++part) body(part);
    return;
  }
  auto crew = std::make_shared<Crew>(parts);
  // A helper that starts late finds no part left and touches `body` no more, so `body` may live on this stack.
  const Body* shared = &body;
  int64_t helpers = (parts < threads ? parts : threads) - 1;
  for (int64_t i = 0; i < helpers; ++i) {
    pool.Schedule([crew, shared] { crew->work(*shared); });
  }
  crew->work(body);
  for (int spin = 0; spin < 2000 && crew->done.load(std::memory_order_acquire) < parts; ++spin) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  if (crew->done.load(std::memory_order_acquire) < parts) {
    std::unique_lock<std::mutex> lock(crew->mutex);
    crew->ready.wait(lock, [&] { return crew->done.load(std::memory_order_acquire) >= parts; });
  }
  if (crew->failure) std::rethrow_exception(crew->failure);
}

// The range of `count` things that part `part` of `parts` takes: as even as can be, in order.
struct Range {
  int64_t begin, end;
};

inline Range range_of(int64_t count, int64_t parts, int64_t part) {
  int64_t each = count / parts, more = count % parts;
  int64_t begin = part * each + (part < more ? part : more);
  return {begin, begin + each + (part < more ? 1 : 0)};
}

}  // namespace kerasoft
