// Rows of tables: taken out, put back in place, and added up by who stands for them.
//
// Rows lie anywhere in memory, so the rows ahead are fetched while one is copied.
#include <algorithm>
#include <cstring>
#include <limits>

#include "registry.h"
#include "table_rows.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

constexpr int64_t kAhead = 12;  // rows

// Rows of a table (n, d) at ids: negative ones count from the end, rows outside are NaN.
ffi::Error take_rows(ffi::ThreadPool pool, Floats table, Ints ids, Result out) {
  int64_t rows = ids.element_count(), count = table.dimensions()[0], width = count ? table.element_count() / count : 0;
  const float* from = table.typed_data();
  float* to = out->typed_data();
  const auto id = [&, all = ids.typed_data()](int64_t i) { return row_of(all[i], count); };
  const auto ahead = [&](int64_t i) {
    if (int64_t at = id(i); at >= 0) fetch(from + at * width, width);
  };
  parallel_for(pool, parts_of(pool, rows, width), [&, parts = parts_of(pool, rows, width)](int64_t part) {
    Range r = range_of(rows, parts, part);
    for (int64_t i = r.begin; i < std::min(r.begin + kAhead, r.end); ++i) ahead(i);
    for (int64_t i = r.begin; i < r.end; ++i) {
      if (i + kAhead < r.end) ahead(i + kAhead);
      if (int64_t at = id(i); at >= 0) {
        std::memcpy(to + i * width, from + at * width, width * sizeof(float));
      } else {
        std::fill_n(to + i * width, width, std::numeric_limits<float>::quiet_NaN());
      }
    }
  });
  return ffi::Error::Success();
}

// The table with rows put at ids, in place (the result is the first argument's memory); ids >= n are left out. No id
// stands twice.
ffi::Error put_rows(ffi::ThreadPool pool, Floats table, Ints ids, Floats values, Result out) {
  int64_t rows = ids.element_count(), width = rows ? values.element_count() / rows : 0;
  int64_t count = width ? table.element_count() / width : 0;
  const int32_t* id = ids.typed_data();
  const float* from = values.typed_data();
  float* to = out->typed_data();
  if (to != table.typed_data()) std::memcpy(to, table.typed_data(), table.element_count() * sizeof(float));
  parallel_for(pool, parts_of(pool, rows, width), [&, parts = parts_of(pool, rows, width)](int64_t part) {
    Range r = range_of(rows, parts, part);
    for (int64_t i = r.begin; i < r.end; ++i) {
      if (i + kAhead < r.end && id[i + kAhead] < count) fetch(to + id[i + kAhead] * width, width);
      if (id[i] < count) std::memcpy(to + id[i] * width, from + i * width, width * sizeof(float));
    }
  });
  return ffi::Error::Success();
}

// Row i added to row owner[i] of zeros, in the order of i; owners outside are left out. Columns are cut among threads.
ffi::Error sum_rows(ffi::ThreadPool pool, Floats values, Ints owners, Result out) {
  int64_t rows = owners.element_count(), width = rows ? values.element_count() / rows : 0;
  const int32_t* owner = owners.typed_data();
  const float* from = values.typed_data();
  float* to = out->typed_data();
  int64_t blocks = (width + kLine - 1) / kLine;
  int64_t parts = rows * width < 16384 ? 1 : std::min(blocks, thread_count(pool));
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(blocks, parts, part);
    int64_t first = r.begin * kLine, last = std::min(width, r.end * kLine);
    for (int64_t i = 0; i < rows; ++i) std::memset(to + i * width + first, 0, (last - first) * sizeof(float));
    for (int64_t i = 0; i < rows; ++i) {
      int64_t o = owner[i];
      if (o < 0 || o >= rows) continue;
      float* __restrict sum = to + o * width;
      const float* __restrict row = from + i * width;
      for (int64_t c = first; c < last; ++c) sum[c] += row[c];
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(TakeRows, take_rows,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Ints>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(PutRows, put_rows,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SumRows, sum_rows,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Ints>().Ret<Floats>());

KERASOFT_TARGET("take_rows", TakeRows);
KERASOFT_TARGET("put_rows", PutRows);
KERASOFT_TARGET("sum_rows", SumRows);

}  // namespace kerasoft
