// Products by MKL: float32, bfloat16 with float32 results, 8-bit integers with int32 results.
#include <vector>

#include "mkl.h"

namespace kerasoft {
namespace {

enum Turned : int64_t { kLeft = 1, kRight = 2 };  // which operand is stored transposed

// (m, k) by (k, n), either of them possibly stored transposed. A thread takes rows of the result, or columns where there
// are few rows: run(ta, tb, m, n, k, a, lda, b, ldb, c, ldc).
template <typename In, typename Out, typename Run>
ffi::Error product(ffi::ThreadPool& pool, int64_t turned, const ffi::AnyBuffer& left, const ffi::AnyBuffer& right,
                   ffi::Result<ffi::AnyBuffer>& result, const Run& run) {
  const bool ta = turned & kLeft, tb = turned & kRight;
  const int64_t m = result->dimensions()[0], n = result->dimensions()[1], k = left.dimensions()[ta ? 0 : 1];
  const int64_t lda = left.dimensions()[1], ldb = right.dimensions()[1], threads = thread_count(pool);
  const In *x = static_cast<const In*>(left.untyped_data()), *y = static_cast<const In*>(right.untyped_data());
  Out* z = static_cast<Out*>(result->untyped_data());
  const bool by_rows = m >= 16 * threads || m >= n;
  const int64_t parts = 2.0 * m * n * k < 2e5 ? 1 : threads;
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(by_rows ? m : n, parts, part);
    const int size = static_cast<int>(r.end - r.begin);
    if (size == 0) return;
    const In* a = by_rows ? x + r.begin * (ta ? 1 : lda) : x;
    const In* b = by_rows ? y : y + r.begin * (tb ? ldb : 1);
    run(ta ? mkl::kTransposed : mkl::kAsItIs, tb ? mkl::kTransposed : mkl::kAsItIs, by_rows ? size : int(m),
        by_rows ? int(n) : size, int(k), a, int(lda), b, int(ldb), z + r.begin * (by_rows ? n : 1), int(n));
  });
  return ffi::Error::Success();
}

ffi::Error Floats(ffi::ThreadPool pool, int64_t turned, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> c) {
  return product<float, float>(pool, turned, a, b, c, [](int ta, int tb, int m, int n, int k, auto* a, int lda, auto* b,
                                                         int ldb, auto* c, int ldc) {
    mkl::functions().cblas_sgemm(mkl::kRowMajor, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c, ldc);
  });
}

ffi::Error Halves(ffi::ThreadPool pool, int64_t turned, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> c) {
  return product<uint16_t, float>(pool, turned, a, b, c, [](int ta, int tb, int m, int n, int k, auto* a, int lda, auto* b,
                                                            int ldb, auto* c, int ldc) {
    mkl::functions().cblas_gemm_bf16bf16f32(mkl::kRowMajor, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c, ldc);
  });
}

void multiply_bytes(int m, int n, int k, const uint8_t* a, int lda, const int8_t* b, int ldb, int32_t* c, int ldc,
                    int8_t offset) {
  static const int32_t zero = 0;
  mkl::functions().cblas_gemm_s8u8s32(mkl::kRowMajor, mkl::kAsItIs, mkl::kAsItIs, mkl::kOneOffset, m, n, k, 1.0f, a, lda,
                                      offset, b, ldb, 0, 0.0f, c, ldc, &zero);
}

// uint8 (m, k) plus `offset` by int8 (k, n) -> int32 (m, n)
ffi::Error Bytes(ffi::ThreadPool pool, int64_t offset, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> c) {
  return product<uint8_t, int32_t>(pool, 0, a, b, c, [&](int, int, int m, int n, int k, auto* a, int lda, const uint8_t* b,
                                                         int ldb, auto* c, int ldc) {
    multiply_bytes(m, n, k, a, lda, reinterpret_cast<const int8_t*>(b), ldb, c, ldc, int8_t(offset));
  });
}

}  // namespace

// Whether products of bytes are exact: without VNNI MKL adds pairs of them in 16 bits, which saturate.
extern "C" __attribute__((visibility("default"))) bool kerasoft_mkl_bytes_are_exact() {
  const int m = 16, n = 32, k = 64;
  std::vector<uint8_t> a(m * k, 255);
  std::vector<int8_t> b(k * n, 127);
  std::vector<int32_t> c(m * n, 0);
  multiply_bytes(m, n, k, a.data(), k, b.data(), n, c.data(), n, 0);
  for (int32_t one : c)
    if (one != 255 * 127 * k) return false;
  return true;
}

#define KERASOFT_PRODUCT(NAME, FUNCTION, ATTRIBUTE)                       \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(NAME, FUNCTION,                           \
                                ffi::Ffi::Bind()                          \
                                    .Ctx<ffi::ThreadPool>()               \
                                    .Attr<int64_t>(ATTRIBUTE)             \
                                    .Arg<ffi::AnyBuffer>()                \
                                    .Arg<ffi::AnyBuffer>()                \
                                    .Ret<ffi::AnyBuffer>())
KERASOFT_PRODUCT(MklProduct, Floats, "turned");
KERASOFT_PRODUCT(MklHalfProduct, Halves, "turned");
KERASOFT_PRODUCT(MklByteProduct, Bytes, "offset");
#undef KERASOFT_PRODUCT

KERASOFT_TARGET("mkl_product", MklProduct);
KERASOFT_TARGET("mkl_half_product", MklHalfProduct);
KERASOFT_TARGET("mkl_byte_product", MklByteProduct);

}  // namespace kerasoft
