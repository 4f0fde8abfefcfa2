// Products of float32 blocks as in product.h, with A read where it stands, whatever the distance of its rows, and packed or
// fetched in passing: stores and fetches of lines fit beside the products of a tile, a pass of their own takes time.
#pragma once

#include "product.h"

namespace kerasoft {

// Rows that stand so far apart fall into few sets of the first cache: they must be packed (pack_rows).
inline bool falls_together(int64_t distance) { return distance % 1024 == 0; }

// Lines that a later tile will read: `count` columns of panels, row after row, from `next` on.
struct Fetch {
  const float* next = nullptr;
  int64_t step = 0;
};

// C += rows of A, `lda` apart, by a panel of B. FETCH: and the lines of `fetch` come to the second cache.
template <int M, bool FETCH>
void strided_tile(int64_t k, const float* a, int64_t lda, const float* b, float* c, int64_t ldc, int64_t columns,
                  const Finish& f, const Fetch& fetch) {
  constexpr int kGroups = (M + 2) / 3;  // of three rows, one pointer each: all else is in the address of a load
  Vec acc[M][2];
  start_tile<M>(acc, c, ldc, columns, f);
  fetch_tile<M>(c, ldc);
  const float *rows[kGroups], *next = fetch.next;
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) rows[g] = a + 3 * g * lda;
  for (int64_t i = 0; i < k; ++i) {
    Vec b0 = load(b), b1 = load(b + kLanes);
    b += kColumns;
    if (FETCH) {
      __builtin_prefetch(next, 0, 2);
      if (kColumns > 16) __builtin_prefetch(next + 16, 0, 2);
      next += fetch.step;
    }
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float x = rows[r / 3][r % 3 * lda];
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) ++rows[g];
  }
  end_tile<M>(acc, c, ldc, columns, f);
}

using StridedTile = void (*)(int64_t, const float*, int64_t, const float*, float*, int64_t, int64_t, const Finish&,
                             const Fetch&);

template <bool FETCH, int... I>
inline StridedTile pick_strided(int rows, std::integer_sequence<int, I...>) {
  static constexpr StridedTile table[] = {strided_tile<I + 1, FETCH>...};
  return table[rows - 1];
}

// C (m, columns) from A, rows `lda` apart, and one panel of B; `fetch` as above, if there is any.
inline void strided_product(int64_t m, int64_t columns, int64_t k, const float* a, int64_t lda, const float* panel, float* c,
                            int64_t ldc, const Finish& finish, const Fetch& fetch) {
  constexpr auto sizes = std::make_integer_sequence<int, kRows>();
  int64_t chunks = divide_up(m, kRows), each = m / chunks, more = m % chunks, row = 0;
  for (int64_t i = 0; i < chunks; ++i) {
    const int rows = int(each + (i < more));
    Finish f = finish;
    if (f.gate) f.gate += row * ldc;
    const auto run = fetch.next && i == chunks / 2 ? pick_strided<true>(rows, sizes) : pick_strided<false>(rows, sizes);
    run(k, a + row * lda, lda, panel, c + row * ldc, ldc, columns, f, fetch);
    row += rows;
  }
}

// As `tile<M, 1, kRows>` with A given as its transpose, rows `lda` apart: A's columns are packed to `to` on the way, kRows
// floats for each k, for later tiles. It may write up to a vector behind the last of them.
template <int M>
void packing_tile(int64_t k, const float* a, int64_t lda, const float* b, float* to, float* c, int64_t ldc, int64_t columns,
                  const Finish& f) {
  Vec acc[M][2];
  start_tile<M>(acc, c, ldc, columns, f);
  fetch_tile<M>(c, ldc);
  for (int64_t i = 0; i < k; ++i) {
    Vec b0 = load(b), b1 = load(b + kLanes);
    b += kColumns;
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float x = a[r];
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
    std::memcpy(to, a, M * sizeof(float));
    a += lda, to += kRows;
  }
  end_tile<M>(acc, c, ldc, columns, f);
}

using PackingTile = void (*)(int64_t, const float*, int64_t, const float*, float*, float*, int64_t, int64_t, const Finish&);

template <int... I>
inline PackingTile pick_packing(int rows, std::integer_sequence<int, I...>) {
  static constexpr PackingTile table[] = {packing_tile<I + 1>...};
  return table[rows - 1];
}

// C (rows <= kRows, n) from A's transpose (k, rows), rows `lda` apart, and panels of B (n columns), `distance` apart. Space:
// k * kRows floats.
inline void chunk_by_panels(int rows, int64_t n, int64_t k, const float* a, int64_t lda, const float* panels,
                            int64_t distance, float* space, float* c, int64_t ldc, const Finish& f) {
  constexpr auto sizes = std::make_integer_sequence<int, kRows>();
  pick_packing(rows, sizes)(k, a, lda, panels, space, c, ldc, n, f);
  const Tile run = pick<1, kRows>(rows, sizes);
  for (int64_t j = kColumns; j < n; j += kColumns) run(k, space, panels += distance, c + j, ldc, n - j, f);
}

}  // namespace kerasoft
