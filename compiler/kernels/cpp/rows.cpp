// Rows of tables: taken out, put back in place, added up by who stands for them, and multiplied by a matrix.
//
// Rows lie anywhere in memory, so the rows ahead are fetched while one is copied.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "gemm.h"
#include "parallel.h"
#include "registry.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

constexpr int64_t kAhead = 12;  // rows
constexpr int64_t kLine = 16;   // floats

inline void fetch(const float* row, int64_t width) {
  for (int64_t c = 0; c < width; c += kLine) __builtin_prefetch(row + c, 0, 1);
}

inline int64_t parts_of(ffi::ThreadPool& pool, int64_t rows, int64_t width) {
  return rows * width < 16384 ? 1 : std::min<int64_t>(rows, thread_count(pool) * 4);
}

// Rows of a table (n, d) at ids: negative ones count from the end, rows outside are NaN.
ffi::Error take_rows(ffi::ThreadPool pool, Floats table, Ints ids, Result out) {
  int64_t rows = ids.element_count(), count = table.dimensions()[0], width = count ? table.element_count() / count : 0;
  const float* from = table.typed_data();
  float* to = out->typed_data();
  const auto id = [&, all = ids.typed_data()](int64_t i) {
    const int64_t one = all[i] < 0 ? all[i] + count : all[i];
    return one >= 0 && one < count ? one : -1;
  };
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

// Each id once: `unique` (-1 outside of the `count` rows) and, for each of the `l` positions, which of them it is.
// Returns how many there are. `places` (count) may hold anything.
int64_t find_unique(const int32_t* ids, int64_t l, int64_t count, int32_t* places, int32_t* unique, int32_t* which) {
  int64_t found = 0;
  const auto id = [&](int64_t i) {
    const int64_t one = ids[i] < 0 ? ids[i] + count : ids[i];
    return int32_t(one >= 0 && one < count ? one : -1);
  };
  for (int64_t i = 0; i < l; ++i) {
    const int32_t one = id(i);
    if (one >= 0) {
      const int32_t first = places[one];  // if it is no earlier position of the same id, nobody has written it
      if (first >= 0 && first < i && id(first) == one) {
        which[i] = which[first];
        continue;
      }
      places[one] = int32_t(i);
    }
    which[i] = int32_t(found);
    unique[found++] = one;
  }
  return found;
}

// Rows of several tables, one after the other, by a matrix: inputs are a table (n, d) and its ids (l) for each, the matrix
// (d + .., columns)[, a bias]; flags: 2 bias, 4 relu. The part of a table is multiplied once for each different id.
ffi::Error dense_of_rows(ffi::ThreadPool pool, int64_t tables, int64_t flags, ffi::RemainingArgs inputs, Result out) {
  const auto floats = [&](size_t i) { return inputs.get<Floats>(i).value(); };
  const auto ids = [&](int64_t j) { return inputs.get<Ints>(2 * j + 1)->typed_data(); };
  const int64_t l = out->dimensions()[0], n = out->dimensions()[1];
  const float *matrix = floats(2 * tables).typed_data(), *bias = flags & 2 ? floats(2 * tables + 1).typed_data() : nullptr;
  Workspace numbers(size_t(2 * tables * l) * sizeof(int32_t));
  int32_t* all = static_cast<int32_t*>(numbers.data());
  std::vector<int64_t> counts(tables);
  std::vector<std::unique_ptr<Workspace>> parts_of_y;
  parallel_for(pool, tables, [&](int64_t j) {
    const int64_t count = floats(2 * j).dimensions()[0];
    Workspace places(size_t(count) * sizeof(int32_t));
    counts[j] = find_unique(ids(j), l, count, static_cast<int32_t*>(places.data()), all + 2 * j * l, all + (2 * j + 1) * l);
  });
  for (int64_t j = 0, row = 0; j < tables; ++j) {
    const Floats table = floats(2 * j);
    const int64_t d = table.dimensions()[1], count = counts[j];
    Workspace rows(size_t(count * d) * sizeof(float));
    const int32_t* unique = all + 2 * j * l;
    const int64_t parts = parts_of(pool, count, d);
    parallel_for(pool, parts, [&](int64_t part) {
      Range r = range_of(count, parts, part);
      for (int64_t i = r.begin; i < r.end; ++i) {
        if (i + kAhead < r.end && unique[i + kAhead] >= 0) fetch(table.typed_data() + unique[i + kAhead] * d, d);
        float* to = rows.floats() + i * d;
        if (unique[i] >= 0) {
          std::memcpy(to, table.typed_data() + unique[i] * d, d * sizeof(float));
        } else {
          std::fill_n(to, d, std::numeric_limits<float>::quiet_NaN());
        }
      }
    });
    parts_of_y.push_back(std::make_unique<Workspace>(size_t(count * n) * sizeof(float)));
    multiply(pool, count, n, d, rows.floats(), matrix + row * n, false, parts_of_y.back()->floats());
    row += d;
  }
  const int64_t parts = parts_of(pool, l, n);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(l, parts, part);
    for (int64_t i = r.begin; i < r.end; ++i) {
      float* __restrict to = out->typed_data() + i * n;
      for (int64_t j = 0; j < tables; ++j) {
        const float* __restrict from = parts_of_y[j]->floats() + all[(2 * j + 1) * l + i] * n;
        if (j) {
          for (int64_t c = 0; c < n; ++c) to[c] += from[c];
        } else if (bias) {
          for (int64_t c = 0; c < n; ++c) to[c] = from[c] + bias[c];
        } else {
          std::memcpy(to, from, n * sizeof(float));
        }
      }
      if (flags & 4)
        for (int64_t c = 0; c < n; ++c) to[c] = to[c] < 0.0f ? 0.0f : to[c];  // NaN stays NaN
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(DenseOfRows, dense_of_rows,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<int64_t>("tables")
                           .Attr<int64_t>("flags")
                           .RemainingArgs()
                           .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(PutRows, put_rows,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SumRows, sum_rows,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Ints>().Ret<Floats>());

KERASOFT_TARGET("take_rows", TakeRows);
KERASOFT_TARGET("dense_of_rows", DenseOfRows);
KERASOFT_TARGET("put_rows", PutRows);
KERASOFT_TARGET("sum_rows", SumRows);

}  // namespace kerasoft
