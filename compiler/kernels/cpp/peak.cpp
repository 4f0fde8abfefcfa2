// What the machine can do at most: multiply-adds per second, and bytes to and from memory per second.
//
// Each handler does its work several times, on all threads, and returns the seconds of the quickest time. Nothing else
// is measured: no dispatch, no page faults.
#include <chrono>
#include <cstdlib>
#include <memory>

#include "parallel.h"
#include "registry.h"

namespace kerasoft {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#else
constexpr int kBytes = 32;
#endif
constexpr int kSums = 12;  // independent sums, more than latency times ports of any processor needs, within 16 registers
typedef float Vector __attribute__((vector_size(kBytes)));

template <typename Body>
static double shortest(int64_t rounds, const Body& body) {
  double best = 1e30;
  for (int64_t i = 0; i < rounds; ++i) {
    auto begin = std::chrono::steady_clock::now();
    body();
    double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (spent < best) best = spent;
  }
  return best;
}

static float multiply_adds(int64_t loops, float factor, float term) {
  Vector sums[kSums], f = factor - Vector{}, t = term - Vector{};
  for (int k = 0; k < kSums; ++k) sums[k] = t * static_cast<float>(k);
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kSums; ++k) sums[k] = sums[k] * f + t;
  }
  float total = 0;
  for (int k = 0; k < kSums; ++k) total += sums[k][0];
  return total;
}

// seconds[0]: of threads * loops * kSums vectors of multiply-adds; seconds[1]: that number of operations.
static ffi::Error Arithmetic(ffi::ThreadPool pool, int64_t loops, int64_t rounds, ffi::Result<ffi::Buffer<ffi::F32>> out) {
  int64_t threads = thread_count(pool);
  volatile float factor = 0.999f, sink = 0;
  float f = factor;
  double best = shortest(rounds, [&] {
    parallel_for(pool, threads, [&](int64_t part) { sink = multiply_adds(loops, f, 0.001f * (part + 1)); });
  });
  out->typed_data()[0] = static_cast<float>(best);
  out->typed_data()[1] = 2.0f * threads * loops * kSums * (kBytes / 4);
  return ffi::Error::Success();
}

// seconds[0]: of c = a + b over three arrays of so many floats; seconds[1]: the bytes that were read and written.
static ffi::Error Stream(ffi::ThreadPool pool, int64_t count, int64_t rounds, ffi::Result<ffi::Buffer<ffi::F32>> out) {
  int64_t vectors = count * 4 / kBytes, threads = thread_count(pool);
  std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(kBytes, 3 * vectors * kBytes), &std::free);
  if (!memory) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for three arrays");
  Vector *a = static_cast<Vector*>(memory.get()), *b = a + vectors, *c = b + vectors;
  auto run = [&](float start) {
    parallel_for(pool, threads, [&](int64_t part) {
      Range range = range_of(vectors, threads, part);
      if (start != 0) {
        for (int64_t i = range.begin; i < range.end; ++i) a[i] = b[i] = c[i] = start - Vector{};
      } else {
        for (int64_t i = range.begin; i < range.end; ++i) c[i] = a[i] + b[i];
      }
    });
  };
  run(1.0f);
  out->typed_data()[0] = static_cast<float>(shortest(rounds, [&] { run(0.0f); }));
  out->typed_data()[1] = static_cast<float>(3.0 * vectors * kBytes);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    PeakArithmetic, Arithmetic,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<int64_t>("loops").Attr<int64_t>("rounds").Ret<ffi::Buffer<ffi::F32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    PeakStream, Stream,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<int64_t>("count").Attr<int64_t>("rounds").Ret<ffi::Buffer<ffi::F32>>());

KERASOFT_TARGET("peak_arithmetic", PeakArithmetic);
KERASOFT_TARGET("peak_stream", PeakStream);

}  // namespace kerasoft
