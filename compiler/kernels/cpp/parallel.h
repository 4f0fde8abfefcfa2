// Work cut among XLA's own threads, so that a kernel neither adds threads nor exceeds their number.
//
// parallel_for(pool, parts, body) runs body(part) for part = 0 .. parts - 1 and returns when all are done. The calling
// thread takes part and waits only for parts that are running, so kernels that run at the same time cannot block one
// another. Parts are claimed in order; what a part computes must not depend on who runs it. The first exception that a
// part throws is thrown again by the caller.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace kerasoft {

namespace ffi = ::xla::ffi;

// One parallel_for under way: parts are claimed one by one, by its caller and whoever helps.
class Crew {
 public:
  Crew(int64_t parts, void (*call)(const void*, int64_t), const void* body) : parts_(parts), call_(call), body_(body) {}

  bool has_parts() const { return next_.load(std::memory_order_relaxed) < parts_; }
  bool is_done() const { return done_.load(std::memory_order_acquire) >= parts_; }

  // Who comes late finds no part left and touches the body no more, so the body may live on the caller's stack.
  void work() {
    for (;;) {
      int64_t part = next_.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts_) return;
      try {
        call_(body_, part);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts_) {
        std::lock_guard<std::mutex> lock(mutex_);
        ready_.notify_all();
      }
    }
  }

  void wait() {
    for (int spin = 0; spin < 2000 && !is_done(); ++spin) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [&] { return is_done(); });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  const int64_t parts_;
  void (*call_)(const void*, int64_t);
  const void* body_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::mutex mutex_;
  std::condition_variable ready_;
  std::exception_ptr failure_;
};

// The process computes one parallel_for at a time: a thread that comes with another helps the one under way and then
// begins its own. XLA starts independent kernels at once, from more threads than there are cores; without this they
// would take the cores and caches from each other.
class Stage {
 public:
  static Stage& get() {
    static Stage* one = new Stage();
    return *one;
  }

  void enter(const std::shared_ptr<Crew>& crew) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (current_) {
      std::shared_ptr<Crew> other = current_;
      if (other->has_parts()) {
        lock.unlock();
        other->work();
        lock.lock();
      } else {
        changed_.wait(lock);
      }
    }
    current_ = crew;
    changed_.notify_all();  // who waits may help
  }

  void leave() {
    std::lock_guard<std::mutex> lock(mutex_);
    current_.reset();
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Crew> current_;
};

// Threads that have just helped and wait for the next parallel_for, for 20 microseconds: to wake one takes about as long,
// and a step of small products calls a dozen of them one after the other. XLA's own work may have to wait that long for a
// thread, which is why it is not longer.
class Bench {
 public:
  static Bench& get() {
    static Bench* one = new Bench();
    return *one;
  }

  // Gives the crew to a thread that waits, if there is one.
  bool call(const std::shared_ptr<Crew>& crew) {
    for (Seat& seat : seats_) {
      int expected = kWaiting;
      if (seat.state.load(std::memory_order_relaxed) == kWaiting &&
          seat.state.compare_exchange_strong(expected, kCalled, std::memory_order_acquire)) {
        seat.crew = crew;
        seat.state.store(kReady, std::memory_order_release);
        return true;
      }
    }
    return false;
  }

  // Works for the crews that come, until none has come for a while.
  void wait() {
    for (Seat& seat : seats_) {
      int expected = kFree;
      if (!seat.state.compare_exchange_strong(expected, kWaiting, std::memory_order_acq_rel)) continue;
      for (auto end = Clock::now() + kPatience;;) {
        if (seat.state.load(std::memory_order_acquire) == kReady) {
          const std::shared_ptr<Crew> crew = std::move(seat.crew);
          seat.state.store(kTaken, std::memory_order_relaxed);
          crew->work();
          seat.state.store(kWaiting, std::memory_order_release);
          end = Clock::now() + kPatience;
        }
        for (int i = 0; i < 16 && seat.state.load(std::memory_order_relaxed) != kReady; ++i) pause();
        expected = kWaiting;  // it is not while somebody is just calling
        if (Clock::now() > end && seat.state.compare_exchange_strong(expected, kFree, std::memory_order_acq_rel)) break;
      }
      return;
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kPatience{20};
  static constexpr int kFree = 0, kWaiting = 1, kCalled = 2, kReady = 3, kTaken = 4, kSeats = 64;
  struct alignas(64) Seat {
    std::atomic<int> state{kFree};
    std::shared_ptr<Crew> crew;
  };

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  Seat seats_[kSeats];
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
  auto call = [](const void* one, int64_t part) { (*static_cast<const Body*>(one))(part); };
  auto crew = std::make_shared<Crew>(parts, call, &body);
  Stage& stage = Stage::get();
  stage.enter(crew);
  int64_t helpers = (parts < threads ? parts : threads) - 1;
  for (int64_t i = 0; i < helpers; ++i) {
    if (Bench::get().call(crew)) continue;
    pool.Schedule([crew] {
      crew->work();
      Bench::get().wait();
    });
  }
  crew->work();
  struct Leave {
    Stage& stage;
    ~Leave() { stage.leave(); }
  } leave{stage};
  crew->wait();
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
