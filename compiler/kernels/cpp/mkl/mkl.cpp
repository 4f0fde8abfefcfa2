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
constexpr int kRowMajor = 101, kAsItIs = 111, kTransposed = 112;

static std::atomic<Sgemm> sgemm{nullptr};

extern "C" __attribute__((visibility("default"))) void kerasoft_mkl_use(void* function) {
  sgemm.store(reinterpret_cast<Sgemm>(function));
}

// (m, k) by (k, n), either of them possibly stored transposed. A thread takes rows of the result, or columns where there
// are few rows.
static ffi::Error Product(ffi::ThreadPool pool, int64_t transposed, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> b,
                          ffi::Result<ffi::Buffer<ffi::F32>> c) {
  Sgemm run = sgemm.load();
  if (!run) return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "MKL was not loaded");
  const bool ta = transposed & 1, tb = transposed & 2;
  const int64_t m = c->dimensions()[0], n = c->dimensions()[1], k = a.dimensions()[ta ? 0 : 1];
  const int64_t lda = a.dimensions()[1], ldb = b.dimensions()[1], threads = thread_count(pool);
  const float *x = a.typed_data(), *y = b.typed_data();
  float* z = c->typed_data();
  const bool by_rows = m >= 16 * threads || m >= n;
  const int64_t parts = 2.0 * m * n * k < 2e5 ? 1 : threads;
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(by_rows ? m : n, parts, part);
    const int size = static_cast<int>(r.end - r.begin);
    if (size == 0) return;
    const float* left = by_rows ? x + r.begin * (ta ? 1 : lda) : x;
    const float* right = by_rows ? y : y + r.begin * (tb ? ldb : 1);
    float* out = z + r.begin * (by_rows ? n : 1);
    run(kRowMajor, ta ? kTransposed : kAsItIs, tb ? kTransposed : kAsItIs, by_rows ? size : m, by_rows ? n : size, k, 1.0f,
        left, lda, right, ldb, 0.0f, out, n);
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(MklProduct, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("transposed")
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
KERASOFT_TARGET("mkl_product", MklProduct);

}  // namespace kerasoft
