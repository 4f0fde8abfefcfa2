// Small products in registers: a tile of R rows and V vectors of columns is summed over k while it stays in registers.
//
// The right-hand side comes as a panel, [k][V * LANES], packed so that it is read in order. The left-hand side is read
// one number at a time, from rows that stand `stride` apart (ACROSS: a[r * stride + k]) or from a matrix whose rows are
// the summed axis (ALONG: a[k * stride + r]). Each number of a tile is summed in the order of k whatever R is, so how
// rows are cut into tiles does not change results.
#pragma once

#include <type_traits>

#include "parallel.h"
#include "vectors.h"

namespace kerasoft {

enum Side { ACROSS, ALONG };

// How many rows a tile of V vectors has at most: what fits the registers beside V columns and one number.
constexpr int tile_rows(int V) {
#if defined(__AVX512F__)
  return V == 1 ? 16 : V == 2 ? 12 : V == 3 ? 8 : 6;
#else
  return V == 1 ? 10 : V == 2 ? 5 : V == 3 ? 3 : 2;
#endif
}

// sums[r][v] += sum over k of a * panel. Of a panel with fewer vectors than sums, vector v goes to sum v, and the last
// one to sum LAST.
template <int R, int V, Side SIDE, int SLOTS = V, int LAST = V - 1>
KERASOFT_INLINE void multiply(const float* a, int64_t stride, int64_t depth, const float* panel, vec (&sums)[R][SLOTS]) {
  for (int64_t k = 0; k < depth; ++k) {
    vec column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = load(panel + (k * V + v) * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vec x = all(SIDE == ACROSS ? a[r * stride + k] : a[k * stride + r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v == V - 1 ? LAST : v] += x * column[v];
    }
  }
}

// Calls body(std::integral_constant<int, count>) for a count of 1 .. MOST known only when running.
template <int MOST, typename Body>
KERASOFT_INLINE void with_constant(int64_t count, const Body& body) {
  if (count == MOST) {
    body(std::integral_constant<int, MOST>());
  } else if constexpr (MOST > 1) {
    with_constant<MOST - 1>(count, body);
  }
}

// Cuts `rows` into tiles of at most MOST rows, as even as can be: body(constant of the tile's rows, its first row).
template <int MOST, typename Body>
KERASOFT_INLINE void each_tile(int64_t rows, const Body& body) {
  int64_t tiles = (rows + MOST - 1) / MOST;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    Range range = range_of(rows, tiles, tile);
    with_constant<MOST>(range.end - range.begin, [&](auto count) { body(count, range.begin); });
  }
}

// Panels of the plain matrix product: `columns` cut into panels of four vectors, the last one of as many as are left.
struct Panels {
  int64_t columns, depth;

  int64_t vectors() const { return (columns + LANES - 1) / LANES; }
  int64_t count() const { return (vectors() + 3) / 4; }
  int64_t floats() const { return vectors() * LANES * depth; }
  int vectors_of(int64_t panel) const { return panel + 1 < count() ? 4 : int(vectors() - 4 * panel); }
  int64_t offset(int64_t panel) const { return panel * 4 * LANES * depth; }
};

// out(row, column, vector, lanes) for each vector of a @ panels, where a has `rows` rows, `stride` apart.
template <typename Out>
void product(const float* a, int64_t stride, int64_t rows, const Panels& shape, const float* panels, const Out& out) {
  for (int64_t p = 0; p < shape.count(); ++p) {
    with_constant<4>(shape.vectors_of(p), [&](auto vectors) {
      constexpr int V = decltype(vectors)::value;
      each_tile<tile_rows(V)>(rows, [&](auto count, int64_t first) {
        constexpr int R = decltype(count)::value;
        vec sums[R][V] = {};
        multiply<R, V, ACROSS>(a + first * stride, stride, shape.depth, panels + shape.offset(p), sums);
        for (int r = 0; r < R; ++r) {
          for (int v = 0; v < V; ++v) {
            int64_t column = (p * 4 + v) * LANES, left = shape.columns - column;
            out(first + r, column, sums[r][v], int(left < LANES ? left : LANES));
          }
        }
      });
    });
  }
}

// The columns of a gate are cut into blocks of LANES units; the panel of a block holds its columns of all gates.
inline int64_t blocks_of(int64_t units) { return (units + LANES - 1) / LANES; }

// Packs a kernel [depth][gates * units] into panels [block][depth][gates][LANES]; lanes beyond the units are zero.
inline void pack_gates(const float* kernel, int64_t depth, int gates, int64_t units, int64_t block, float* panel) {
  int64_t first = block * LANES, lanes = units - first < LANES ? units - first : LANES;
  for (int64_t k = 0; k < depth; ++k) {
    for (int g = 0; g < gates; ++g) {
      store(panel + (k * gates + g) * LANES, load(kernel + (k * gates + g) * units + first, int(lanes)));
    }
  }
}

}  // namespace kerasoft
