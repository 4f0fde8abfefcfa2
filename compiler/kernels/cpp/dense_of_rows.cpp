// Products with a matrix of rows that are looked up in tables: once for each different id of a batch.
//
// A batch looks many rows up several times: of 2,048 ratings of MovieLens's sizes half the items are different.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "gemm.h"
#include "registry.h"
#include "table_rows.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

constexpr int64_t kAhead = 12;  // rows

// Each id once: `unique` (-1 outside of the `count` rows) and, for each of the `l` positions, which of them it is.
// Returns how many there are. `places` (count) may hold anything: what is no earlier position of the id counts for nothing.
int64_t find_unique(const int32_t* ids, int64_t l, int64_t count, int32_t* places, int32_t* unique, int32_t* which) {
  int64_t found = 0;
  const auto id = [&](int64_t i) { return int32_t(row_of(ids[i], count)); };
  for (int64_t i = 0; i < l; ++i) {
    const int32_t one = id(i);
    if (one >= 0) {
      const int32_t first = places[one];
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

// The lookups of one table: its different ids, and which of them stands at each position.
struct Lookup {
  Floats table;
  const int32_t* ids;
  int64_t l, width, count = 0;
  Workspace numbers;
  int32_t *unique, *which;

  Lookup(Floats table, Ints ids)
      : table(table), ids(ids.typed_data()), l(ids.element_count()), width(table.dimensions()[1]),
        numbers(size_t(2 * l) * sizeof(int32_t)), unique(static_cast<int32_t*>(numbers.data())), which(unique + l) {}

  void find() {
    const int64_t rows = table.dimensions()[0];
    Workspace places(size_t(rows) * sizeof(int32_t));
    count = find_unique(ids, l, rows, static_cast<int32_t*>(places.data()), unique, which);
  }

  // The rows of the different ids, one after the other.
  void gather(ffi::ThreadPool& pool, float* to) const {
    const float* from = table.typed_data();
    for_rows(pool, count, width, [&](int64_t i) {
      if (i + kAhead < count && unique[i + kAhead] >= 0) fetch(from + unique[i + kAhead] * width, width);
      if (unique[i] >= 0) {
        std::memcpy(to + i * width, from + unique[i] * width, width * sizeof(float));
      } else {
        std::fill_n(to + i * width, width, std::numeric_limits<float>::quiet_NaN());
      }
    });
  }
};

using Lookups = std::vector<std::unique_ptr<Lookup>>;

Lookups lookups_of(ffi::ThreadPool& pool, ffi::RemainingArgs& inputs, int64_t tables) {
  Lookups all;
  for (int64_t j = 0; j < tables; ++j)
    all.push_back(std::make_unique<Lookup>(inputs.get<Floats>(2 * j).value(), inputs.get<Ints>(2 * j + 1).value()));
  parallel_for(pool, tables, [&](int64_t j) { all[j]->find(); });
  return all;
}

// Rows of several tables, side by side, by a matrix: inputs are a table (n, d) and its ids (l) for each, the matrix
// (d + .., columns)[, a bias]; flags: 2 bias, 4 relu.
ffi::Error dense_of_rows(ffi::ThreadPool pool, int64_t tables, int64_t flags, ffi::RemainingArgs inputs, Result out) {
  const int64_t l = out->dimensions()[0], n = out->dimensions()[1];
  const float* matrix = inputs.get<Floats>(2 * tables)->typed_data();
  const float* bias = flags & 2 ? inputs.get<Floats>(2 * tables + 1)->typed_data() : nullptr;
  const Lookups all = lookups_of(pool, inputs, tables);
  std::vector<std::unique_ptr<Workspace>> products;
  for (const auto& one : all) {
    Workspace rows(size_t(one->count * one->width) * sizeof(float));
    one->gather(pool, rows.floats());
    products.push_back(std::make_unique<Workspace>(size_t(one->count * n) * sizeof(float)));
    multiply(pool, one->count, n, one->width, rows.floats(), matrix, false, products.back()->floats());
    matrix += one->width * n;
  }
  for_rows(pool, l, n, [&](int64_t i) {
    float* __restrict to = out->typed_data() + i * n;
    for (int64_t j = 0; j < tables; ++j) {
      const float* __restrict from = products[j]->floats() + all[j]->which[i] * n;
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
  });
  return ffi::Error::Success();
}

// Its gradients: inputs are a table and its ids for each, dy (l, columns) and the matrix; results those of the matrix, of
// the bias, and of each table's rows (l, d): for all positions of an id together at the first of them, zeros elsewhere.
ffi::Error dense_of_rows_gradients(ffi::ThreadPool pool, int64_t tables, ffi::RemainingArgs inputs,
                                   ffi::RemainingRets results) {
  const Floats slopes = inputs.get<Floats>(2 * tables).value();
  const int64_t l = slopes.dimensions()[0], n = slopes.dimensions()[1];
  const float *dy = slopes.typed_data(), *matrix = inputs.get<Floats>(2 * tables + 1)->typed_data();
  float *of_matrix = (*results.get<Floats>(0))->typed_data(), *of_bias = (*results.get<Floats>(1))->typed_data();
  const Lookups all = lookups_of(pool, inputs, tables);
  for (int64_t j = 0; j < tables; ++j) {
    const Lookup& one = *all[j];
    const int64_t d = one.width;
    Workspace numbers(size_t(2 * l) * sizeof(int32_t));
    int32_t *next = static_cast<int32_t*>(numbers.data()), *first = next + l;  // positions of the same id
    std::fill_n(first, one.count, -1);
    for (int64_t i = l - 1; i >= 0; --i) next[i] = first[one.which[i]], first[one.which[i]] = int32_t(i);
    Workspace rows(size_t(one.count * d) * sizeof(float)), sums(size_t(one.count * n) * sizeof(float));
    one.gather(pool, rows.floats());
    for_rows(pool, one.count, n, [&](int64_t u) {
      float* __restrict sum = sums.floats() + u * n;
      std::memcpy(sum, dy + first[u] * n, n * sizeof(float));
      for (int32_t i = next[first[u]]; i >= 0; i = next[i])
        for (int64_t c = 0; c < n; ++c) sum[c] += dy[i * n + c];
    });
    multiply_transposed(pool, d, n, one.count, rows.floats(), sums.floats(), of_matrix, j ? nullptr : of_bias);
    multiply(pool, one.count, d, n, sums.floats(), matrix, true, rows.floats());
    float* to = (*results.get<Floats>(2 + j))->typed_data();
    for_rows(pool, l, d, [&](int64_t i) {
      const int64_t u = one.which[i];
      if (first[u] == i) {
        std::memcpy(to + i * d, rows.floats() + u * d, d * sizeof(float));
      } else {
        std::memset(to + i * d, 0, d * sizeof(float));
      }
    });
    of_matrix += d * n, matrix += d * n;
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DenseOfRows, dense_of_rows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("tables")
                                  .Attr<int64_t>("flags")
                                  .RemainingArgs()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(DenseOfRowsGradients, dense_of_rows_gradients,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<int64_t>("tables").RemainingArgs().RemainingRets());

KERASOFT_TARGET("dense_of_rows", DenseOfRows);
KERASOFT_TARGET("dense_of_rows_gradients", DenseOfRowsGradients);

}  // namespace kerasoft
