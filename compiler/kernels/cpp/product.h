// Products of small float32 blocks out of cache: C (+)= A B, the heart of gemm.cpp and attention.cpp.
//
// B is packed into panels of kColumns columns, each k after k, zeros where columns are missing. A's element (row, k) is at
// a[row * AR + k * AK]; AR and AK are constants so that they become displacements. Registers hold kRows x kColumns of C.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "vectors.h"

namespace kerasoft {

constexpr int kLanes = LANES;
#if defined(__AVX512F__)
constexpr int kRows = 14;
#else
constexpr int kRows = 6;
#endif
constexpr int kColumns = 2 * kLanes;
constexpr int kDepth = 256;          // of a block of A that is packed row after row
constexpr int kStride = kDepth + 16; // of its rows: no two of them share a set of the first cache
constexpr int kWorthFetching = 192;  // of a sum, that C's lines are fetched before they are written

using Vec = vec;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What happens to a tile of C before and after the products.
struct Finish {
  bool accumulate = false;      // add to what C holds
  const float* bias = nullptr;  // a row that is added, at the tile's first column
  bool relu = false;            // negative results become 0
  const float* gate = nullptr;  // results become 0 where this matrix, laid out as C, is not positive
};

// A tile of C in registers, M rows of two vectors: what it holds before the products ...
template <int M>
KERASOFT_INLINE void start_tile(Vec (&acc)[M][2], const float* c, int64_t ldc, int64_t columns, const Finish& f) {
  if (f.accumulate && columns < kColumns) {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float row[kColumns] = {};
      std::memcpy(row, c + r * ldc, columns * sizeof(float));
      acc[r][0] = load(row), acc[r][1] = load(row + kLanes);
    }
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    acc[r][0] = f.accumulate ? load(c + r * ldc) : Vec{};
    acc[r][1] = f.accumulate ? load(c + r * ldc + kLanes) : Vec{};
  }
}

// ... and what becomes of it.
template <int M>
KERASOFT_INLINE void end_tile(Vec (&acc)[M][2], float* c, int64_t ldc, int64_t columns, const Finish& f) {
  const bool whole = columns >= kColumns;
  const Vec zero{};
  if (f.bias) {
    float row[kColumns] = {};
    std::memcpy(row, f.bias, (whole ? kColumns : columns) * sizeof(float));
    Vec b0 = load(row), b1 = load(row + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) acc[r][0] += b0, acc[r][1] += b1;
  }
  if (f.relu) {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      acc[r][0] = acc[r][0] < zero ? zero : acc[r][0];  // NaN stays NaN
      acc[r][1] = acc[r][1] < zero ? zero : acc[r][1];
    }
  }
  if (!whole) {
    float edge[M * kColumns];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) store(edge + r * kColumns, acc[r][0]), store(edge + r * kColumns + kLanes, acc[r][1]);
    for (int r = 0; r < M; ++r)
      for (int64_t j = 0; j < columns; ++j)
        c[r * ldc + j] = !f.gate || f.gate[r * ldc + j] > 0 ? edge[r * kColumns + j] : 0.0f;
    return;
  }
  if (f.gate) {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      acc[r][0] = load(f.gate + r * ldc) > zero ? acc[r][0] : zero;
      acc[r][1] = load(f.gate + r * ldc + kLanes) > zero ? acc[r][1] : zero;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) store(c + r * ldc, acc[r][0]), store(c + r * ldc + kLanes, acc[r][1]);
}

// The tile's lines of C come while its products are computed.
template <int M>
KERASOFT_INLINE void fetch_tile(const float* c, int64_t ldc) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) __builtin_prefetch(c + r * ldc, 1), __builtin_prefetch(c + r * ldc + kColumns - 1, 1);
}

template <int M, int AR, int AK>
inline void tile(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int64_t columns, const Finish& f) {
  Vec acc[M][2];
  start_tile<M>(acc, c, ldc, columns, f);
  if (k >= kWorthFetching) fetch_tile<M>(c, ldc);
  for (int64_t i = 0; i < k; ++i) {
    Vec b0 = load(b), b1 = load(b + kLanes);
    b += kColumns;
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float x = a[r * AR];
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
    a += AK;
  }
  end_tile<M>(acc, c, ldc, columns, f);
}

using Tile = void (*)(int64_t, const float*, const float*, float*, int64_t, int64_t, const Finish&);

template <int M, int AR, int AK>
void tile_function(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int64_t columns, const Finish& f) {
  tile<M, AR, AK>(k, a, b, c, ldc, columns, f);
}

template <int AR, int AK, int... I>
inline Tile pick(int rows, std::integer_sequence<int, I...>) {
  static constexpr Tile table[] = {tile_function<I + 1, AR, AK>...};
  return table[rows - 1];
}

// C (m, n) from A and the panels of B (stride of a panel: k * kColumns). Rows are cut into chunks of even size; `chunk`
// is the distance of A's chunks, or 0 where rows follow one another with stride AR.
template <int AR, int AK>
inline void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t chunk, const float* panels, float* c,
                    int64_t ldc, const Finish& finish) {
  int64_t chunks = divide_up(m, kRows), each = m / chunks, more = m % chunks;
  for (int64_t j = 0; j < n; j += kColumns, panels += k * kColumns) {
    Finish f = finish;
    if (f.bias) f.bias += j;
    int64_t row = 0;
    for (int64_t i = 0; i < chunks; ++i) {
      int64_t rows = each + (i < more);
      Finish g = f;
      if (g.gate) g.gate += row * ldc + j;
      pick<AR, AK>(int(rows), std::make_integer_sequence<int, kRows>())(
          k, chunk ? a + i * chunk : a + row * AR, panels, c + row * ldc + j, ldc, n - j, g);
      row += rows;
    }
  }
}

// --- packing -------------------------------------------------------------------------------------------------------

// Rows of a matrix, kStride apart, times `scale`: (m, k) with k <= kDepth.
inline void pack_rows(const float* a, int64_t lda, int64_t m, int64_t k, float* to, float scale = 1.0f) {
  for (int64_t r = 0; r < m; ++r, a += lda, to += kStride) {
    if (scale == 1.0f) {
      std::memcpy(to, a, k * sizeof(float));
    } else {
      for (int64_t i = 0; i < k; ++i) to[i] = a[i] * scale;
    }
  }
}

// A from its transpose (k, m): chunks of kRows rows, k after k, for product<1, kRows>(.., chunk = k * kRows). Rows are cut
// as `product` cuts them.
inline void pack_chunks(const float* a, int64_t lda, int64_t m, int64_t k, float* to) {
  int64_t chunks = divide_up(m, kRows), each = m / chunks, more = m % chunks;
  for (int64_t i = 0; i < k; ++i, a += lda) {
    const float* from = a;
    for (int64_t c = 0; c < chunks; ++c) {
      int64_t rows = each + (c < more);
      float* at = to + (c * k + i) * kRows;
      if (rows == kRows) {
        std::memcpy(at, from, kRows * sizeof(float));
      } else {
        for (int64_t r = 0; r < rows; ++r) at[r] = from[r];
      }
      from += rows;
    }
  }
}

// B (k, n), rows ldb apart, into panels `distance` apart; adds its rows to `sums` (n) if that is given.
inline void pack_panels(const float* b, int64_t ldb, int64_t k, int64_t n, float* to, int64_t distance,
                        float* sums = nullptr) {
  int64_t whole = n / kColumns, rest = n % kColumns;
  for (int64_t i = 0; i < k; ++i, b += ldb) {
    for (int64_t j = 0; j < whole; ++j) {
      const float* from = b + j * kColumns;
      float* at = to + j * distance + i * kColumns;
      Vec x = load(from), y = load(from + kLanes);
      store(at, x), store(at + kLanes, y);
      if (sums) {
        float* s = sums + j * kColumns;
        store(s, load(s) + x), store(s + kLanes, load(s + kLanes) + y);
      }
    }
    if (rest) {
      float* at = to + whole * distance + i * kColumns;
      for (int64_t j = 0; j < rest; ++j) at[j] = b[whole * kColumns + j];
      for (int64_t j = rest; j < kColumns; ++j) at[j] = 0;
      if (sums)
        for (int64_t j = 0; j < rest; ++j) sums[whole * kColumns + j] += at[j];
    }
  }
}

// The sums over k of a panel's columns.
inline void sum_panel(const float* panel, int64_t k, int64_t columns, float* sums) {
  Vec x{}, y{};
  for (int64_t i = 0; i < k; ++i, panel += kColumns) x += load(panel), y += load(panel + kLanes);
  store(sums, x, int(columns < kLanes ? columns : kLanes));
  if (columns > kLanes) store(sums + kLanes, y, int(columns - kLanes));
}

typedef float Four __attribute__((vector_size(16)));
typedef float FourAt __attribute__((vector_size(16), aligned(4), may_alias));
typedef int FourInt __attribute__((vector_size(16)));

// One panel from the transpose of B: (columns, k), rows ldb apart -> k rows of kColumns.
inline void pack_panel_transposed(const float* b, int64_t ldb, int64_t columns, int64_t k, float* to) {
  int64_t whole = columns / 4 * 4, deep = k / 4 * 4;
  for (int64_t j = 0; j < whole; j += 4) {
    const float *p0 = b + j * ldb, *p1 = p0 + ldb, *p2 = p1 + ldb, *p3 = p2 + ldb;
    float* at = to + j;
    for (int64_t i = 0; i < deep; i += 4, at += 4 * kColumns) {
      Four r0 = *reinterpret_cast<const FourAt*>(p0 + i), r1 = *reinterpret_cast<const FourAt*>(p1 + i);
      Four r2 = *reinterpret_cast<const FourAt*>(p2 + i), r3 = *reinterpret_cast<const FourAt*>(p3 + i);
#if defined(__clang__)
      Four a0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), a1 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
      Four a2 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), a3 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      Four c0 = __builtin_shufflevector(a0, a2, 0, 1, 4, 5), c1 = __builtin_shufflevector(a0, a2, 2, 3, 6, 7);
      Four c2 = __builtin_shufflevector(a1, a3, 0, 1, 4, 5), c3 = __builtin_shufflevector(a1, a3, 2, 3, 6, 7);
#else
      Four a0 = __builtin_shuffle(r0, r1, FourInt{0, 4, 1, 5}), a1 = __builtin_shuffle(r0, r1, FourInt{2, 6, 3, 7});
      Four a2 = __builtin_shuffle(r2, r3, FourInt{0, 4, 1, 5}), a3 = __builtin_shuffle(r2, r3, FourInt{2, 6, 3, 7});
      Four c0 = __builtin_shuffle(a0, a2, FourInt{0, 1, 4, 5}), c1 = __builtin_shuffle(a0, a2, FourInt{2, 3, 6, 7});
      Four c2 = __builtin_shuffle(a1, a3, FourInt{0, 1, 4, 5}), c3 = __builtin_shuffle(a1, a3, FourInt{2, 3, 6, 7});
#endif
      *reinterpret_cast<FourAt*>(at) = c0;
      *reinterpret_cast<FourAt*>(at + kColumns) = c1;
      *reinterpret_cast<FourAt*>(at + 2 * kColumns) = c2;
      *reinterpret_cast<FourAt*>(at + 3 * kColumns) = c3;
    }
    for (int64_t i = deep; i < k; ++i)
      to[i * kColumns + j] = p0[i], to[i * kColumns + j + 1] = p1[i], to[i * kColumns + j + 2] = p2[i],
                        to[i * kColumns + j + 3] = p3[i];
  }
  for (int64_t j = whole; j < columns; ++j)
    for (int64_t i = 0; i < k; ++i) to[i * kColumns + j] = b[j * ldb + i];
  for (int64_t j = columns; j < kColumns; ++j)
    for (int64_t i = 0; i < k; ++i) to[i * kColumns + j] = 0;
}

// All panels of a transposed B (n, k).
inline void pack_panels_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* to, int64_t distance) {
  for (int64_t j = 0; j < n; j += kColumns, to += distance)
    pack_panel_transposed(b + j * ldb, ldb, n - j < kColumns ? n - j : kColumns, k, to);
}

}  // namespace kerasoft
