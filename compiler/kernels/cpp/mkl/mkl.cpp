// Products by MKL. MKL is neither linked nor needed to build this: kerasoft.compiler.kernels.bridge opens libmkl_rt, tells it
// to run without threads of its own, and hands over its functions; the work is cut among XLA's threads here.
#include <atomic>
#include <cstdint>

#include "../parallel.h"
#include "../registry.h"

extern "C" __attribute__((visibility("default"))) const kerasoft::Target* kerasoft_mkl_targets() {
  static const std::vector<kerasoft::Target> table = [] {
    auto all = kerasoft::targets();
    all.push_back({nullptr, nullptr});
    return all;
  }();
  return table.data();
}

namespace kerasoft {

// cblas_sgemm(layout, transpose a, transpose b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), with 32-bit integers.
using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
constexpr int kRowMajor = 101, kAsItIs = 111;

static std::atomic<Sgemm> sgemm{nullptr};

extern "C" __attribute__((visibility("default"))) void kerasoft_mkl_use(void* function) {
  sgemm.store(reinterpret_cast<Sgemm>(function));
}

// (m, k) by (k, n). A thread takes rows of the result, or columns where there are few rows.
static ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> b,
                          ffi::Result<ffi::Buffer<ffi::F32>> c) {
  Sgemm run = sgemm.load();
  if (!run) return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "MKL was not loaded");
  const int64_t m = a.dimensions()[0], k = a.dimensions()[1], n = b.dimensions()[1], threads = thread_count(pool);
  const float *x = a.typed_data(), *y = b.typed_data();
  float* z = c->typed_data();
  const bool by_rows = m >= 16 * threads || m >= n;
  const int64_t parts = 2.0 * m * n * k < 2e5 ? 1 : threads;
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(by_rows ? m : n, parts, part);
    const int size = static_cast<int>(r.end - r.begin);
    if (size == 0) return;
    if (by_rows) {
      run(kRowMajor, kAsItIs, kAsItIs, size, n, k, 1.0f, x + r.begin * k, k, y, n, 0.0f, z + r.begin * n, n);
    } else {
      run(kRowMajor, kAsItIs, kAsItIs, m, size, k, 1.0f, x, k, y + r.begin, n, 0.0f, z + r.begin, n);
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(MklProduct, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
KERASOFT_TARGET("mkl_product", MklProduct);

}  // namespace kerasoft
