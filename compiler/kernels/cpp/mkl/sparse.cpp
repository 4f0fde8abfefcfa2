// Sparse rows times a matrix by MKL: compressed rows of k places each.
#include <limits>
#include <vector>

#include "../table_rows.h"
#include "mkl.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;

// ids and values (b, k), a matrix (n, d) -> (b, d); negative ids count from the end, ids outside give NaN.
ffi::Error product(ffi::ThreadPool pool, Ints ids, Floats values, Floats matrix, ffi::Result<Floats> out) {
  const int64_t b = ids.dimensions()[0], k = ids.dimensions()[1], n = matrix.dimensions()[0], d = matrix.dimensions()[1];
  const mkl::Functions& f = mkl::functions();
  const int64_t parts = b * k * d < 16384 ? 1 : std::min<int64_t>(b, thread_count(pool));
  std::atomic<int> failure{0};
  parallel_for(pool, parts, [&](int64_t part) {
    const Range r = range_of(b, parts, part);
    const int64_t rows = r.end - r.begin;
    if (rows == 0) return;
    std::vector<int> place(rows * k), begins(rows + 1);
    std::vector<float> value(values.typed_data() + r.begin * k, values.typed_data() + r.end * k);
    for (int64_t i = 0; i <= rows; ++i) begins[i] = int(i * k);
    for (int64_t i = 0; i < rows * k; ++i) {
      const int64_t at = row_of(ids.typed_data()[r.begin * k + i], n);
      place[i] = int(std::max<int64_t>(at, 0));
      if (at < 0) value[i] = std::numeric_limits<float>::quiet_NaN();
    }
    void* a = nullptr;
    int status = f.mkl_sparse_s_create_csr(&a, 0, rows, n, begins.data(), begins.data() + 1, place.data(), value.data());
    if (status == 0) {
      const mkl::Description general = {20, 42, 50};
      status = f.mkl_sparse_s_mm(10, 1.0f, a, general, mkl::kRowMajor, matrix.typed_data(), d, d, 0.0f,
                                 out->typed_data() + r.begin * d, d);
      f.mkl_sparse_destroy(a);
    }
    if (status) failure = status;
  });
  if (failure) return ffi::Error::Internal("MKL's sparse product failed with status " + std::to_string(failure.load()));
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    MklSparseProduct, product,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("mkl_sparse_product", MklSparseProduct);

}  // namespace
}  // namespace kerasoft
