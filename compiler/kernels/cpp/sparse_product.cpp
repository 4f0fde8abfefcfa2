// Sparse rows times a matrix: for each row of the result the rows of the matrix that its columns name, times its values,
// added up in registers; (b, k, d) is never written.
#include <algorithm>
#include <limits>

#include "registry.h"
#include "table_rows.h"
#include "vectors.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;

constexpr int64_t kAhead = 6;     // rows of the matrix
constexpr int64_t kAtOnce = 8;    // vectors summed in registers

// Columns c .. c + lanes of one row of the result.
template <int kVectors>
KERASOFT_INLINE void sum(const float* matrix, const int32_t* ids, const float* values, int64_t k, int64_t rows,
                         int64_t width, int64_t c, int last, float* to) {
  vec sums[kVectors] = {};
  for (int64_t j = 0; j < k; ++j) {
    if (j + kAhead < k)
      if (const int64_t next = row_of(ids[j + kAhead], rows); next >= 0)
        fetch(matrix + next * width + c, std::min<int64_t>(kVectors * LANES, width - c));
    const int64_t at = row_of(ids[j], rows);
    if (at < 0) {
      for (vec& one : sums) one = all(std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const float* from = matrix + at * width + c;
    const vec v = all(values[j]);
    for (int i = 0; i < kVectors; ++i) sums[i] += v * load(from + i * LANES, i + 1 < kVectors ? LANES : last);
  }
  for (int i = 0; i < kVectors; ++i) store(to + c + i * LANES, sums[i], i + 1 < kVectors ? LANES : last);
}

// ids and values (b, k), a matrix (n, d) -> (b, d); ids as in take_rows.
ffi::Error product(ffi::ThreadPool pool, Ints ids, Floats values, Floats matrix, ffi::Result<Floats> out) {
  const int64_t b = ids.dimensions()[0], k = ids.dimensions()[1], n = matrix.dimensions()[0], d = matrix.dimensions()[1];
  const int32_t* id = ids.typed_data();
  const float *value = values.typed_data(), *from = matrix.typed_data();
  float* to = out->typed_data();
  const int64_t parts = b * k * d < 16384 ? 1 : std::min<int64_t>(b, thread_count(pool) * 4);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(b, parts, part);
    for (int64_t i = r.begin; i < r.end; ++i) {
      int64_t c = 0;
      for (; c + kAtOnce * LANES <= d; c += kAtOnce * LANES)
        sum<kAtOnce>(from, id + i * k, value + i * k, k, n, d, c, LANES, to + i * d);
      for (; c + 2 * LANES <= d; c += 2 * LANES) sum<2>(from, id + i * k, value + i * k, k, n, d, c, LANES, to + i * d);
      for (; c < d; c += LANES)
        sum<1>(from, id + i * k, value + i * k, k, n, d, c, int(std::min<int64_t>(LANES, d - c)), to + i * d);
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    SparseProduct, product,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("sparse_product", SparseProduct);

}  // namespace
}  // namespace kerasoft
