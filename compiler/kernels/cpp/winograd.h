// Winograd's transforms of 6 points: convolutions of 3 or 5 taps from fewer products.
//
// M outputs of a correlation with R taps, M + R - 1 = 6, are y = A' [(G g) * (B' d)], with 6 products in place of M R; in
// two dimensions 36 in place of (M R)^2. The points are 0, +-p, +-1/p and infinity with p = 1 / sqrt(2): with them, errors
// of a float32 convolution are those of a plain sum (measured on 64 channels: 3.7e-6 against 2.9e-6 at most, 1.8e-5 with
// the usual points 0, +-1, +-2). G carries the scales 1 / M'(point).
//
// Source: Winograd 1980; Lavin and Gray 2016 (arXiv:1509.09308); on points, Barabasz et al. 2018 (arXiv:1803.10986).
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel.h"
#include "product.h"
#include "vectors.h"

namespace kerasoft {
namespace winograd {

constexpr int POINTS = 6;
constexpr int PRODUCTS = POINTS * POINTS;

constexpr float P = 0.70710678118654752f, Q = 1.41421356237309505f;  // the points, and their squares:
constexpr float PP = 0.5f, QQ = 2.0f;

// out = B' in.
KERASOFT_INLINE void turn(const vec (&in)[6], vec (&out)[6]) {
  const vec e = in[4] - QQ * in[2], o = in[3] - QQ * in[1];
  const vec f = in[4] - PP * in[2], u = in[3] - PP * in[1];
  out[0] = in[0] + in[4] - (PP + QQ) * in[2];
  out[1] = e + P * o;
  out[2] = e - P * o;
  out[3] = f + Q * u;
  out[4] = f - Q * u;
  out[5] = in[1] + in[5] - (PP + QQ) * in[3];
}

// out = G in, for R taps.
template <int R>
KERASOFT_INLINE void spread(const vec (&in)[R], vec (&out)[6]) {
  vec even_p = in[0], even_q = in[0], odd_p = in[1], odd_q = in[1];
  if constexpr (R > 2) even_p += PP * in[2], even_q += QQ * in[2];
  if constexpr (R > 3) odd_p += PP * in[3], odd_q += QQ * in[3];
  if constexpr (R > 4) even_p += PP * PP * in[4], even_q += QQ * QQ * in[4];
  constexpr float at_p = 1 / (2 * PP * (PP - QQ)), at_q = 1 / (2 * QQ * (QQ - PP));
  out[0] = in[0];
  out[1] = at_p * even_p + (at_p * P) * odd_p;
  out[2] = at_p * even_p - (at_p * P) * odd_p;
  out[3] = at_q * even_q + (at_q * Q) * odd_q;
  out[4] = at_q * even_q - (at_q * Q) * odd_q;
  out[5] = in[R - 1];
}

// out = A' in, for M outputs.
template <int M>
KERASOFT_INLINE void gather(const vec (&in)[6], vec (&out)[M]) {
  const vec s = in[1] + in[2], d = in[1] - in[2], t = in[3] + in[4], e = in[3] - in[4];
  out[0] = in[0] + (s + t);
  out[1] = P * d + Q * e;
  if constexpr (M > 2) out[2] = PP * s + QQ * t;
  if constexpr (M > 3) out[3] = (PP * P) * d + (QQ * Q) * e;
  if constexpr (M > 4) out[4] = (PP * PP) * s + (QQ * QQ) * t;
  out[M - 1] += in[5];
}

// The three in two dimensions, in place order [row][column].
KERASOFT_INLINE void turn(const vec (&in)[6][6], vec (&out)[6][6]) {
  vec half[6][6];
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) turn(in[i], half[i]);
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    vec column[6], made[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = half[i][j];
    turn(column, made);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) out[i][j] = made[i];
  }
}

template <int R>
KERASOFT_INLINE void spread(const vec (&in)[R][R], vec (&out)[6][6]) {
  vec half[R][6];
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i) spread<R>(in[i], half[i]);
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    vec column[R], made[6];
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) column[i] = half[i][j];
    spread<R>(column, made);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) out[i][j] = made[i];
  }
}

template <int M>
KERASOFT_INLINE void gather(const vec (&in)[6][6], vec (&out)[M][M]) {
  vec half[6][M];
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) gather<M>(in[i], half[i]);
#pragma GCC unroll 6
  for (int j = 0; j < M; ++j) {
    vec column[6], made[M];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = half[i][j];
    gather<M>(column, made);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) out[i][j] = made[i];
  }
}

// A convolution with R x R taps, strides of 1, channels last: x (n, h, w, c) -> y (n, oh, ow, f).
struct Conv {
  int64_t n, c, f, h, w, oh, ow, top, left;

  int64_t rows(int m) const { return (oh + m - 1) / m; }
  int64_t columns(int m) const { return (ow + m - 1) / m; }
  int64_t tiles(int m) const { return n * rows(m) * columns(m); }
};

// `spec` as in onednn/convolution.h: two spatial axes, no groups, strides and dilation of 1.
inline Conv conv_of(ffi::Span<const int64_t> spec) {
  return {spec[2], spec[3], spec[4], spec[5], spec[6], spec[7], spec[8], spec[15], spec[16]};
}

// How channels lie in transformed inputs: cut into equal parts of at most kDepth, rows of `stride` floats.
struct Depth {
  int64_t c, parts, each, stride;

  explicit Depth(int64_t channels) : c(channels), parts(divide_up(channels, kDepth)) {
    each = divide_up(divide_up(c, parts), LANES) * LANES;
    for (int64_t one : {16, 32, 48, 80, 112, 144, 208, 272}) {
      stride = one;
      if (one >= each) break;
    }
  }
  int64_t of(int64_t part) const { return std::min(each, c - part * each); }
};

// Where a tile stands: its image and the first row and column of its outputs.
struct Place {
  int64_t image, row, column;
};

inline Place place_of(const Conv& s, int m, int64_t tile) {
  const int64_t columns = s.columns(m), rows = s.rows(m);
  return {tile / (rows * columns), tile / columns % rows * m, tile % columns * m};
}

// The transform of the 6 x 6 inputs at `place`, LANES channels from `channel` on: out[row][column]. Zeros beyond the image.
KERASOFT_INLINE void turn_inputs(const Conv& s, const float* x, Place at, int64_t channel, vec (&out)[6][6]) {
  const int64_t top = at.row - s.top, left = at.column - s.left, lanes = s.c - channel;
  const float* from = x + ((at.image * s.h + top) * s.w + left) * s.c + channel;
  vec in[6][6];
  if (top >= 0 && left >= 0 && top + 6 <= s.h && left + 6 <= s.w && lanes >= LANES) {
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) in[i][j] = load(from + (i * s.w + j) * s.c);
    }
  } else {
    for (int i = 0; i < 6; ++i) {
      for (int j = 0; j < 6; ++j) {
        const bool inside = top + i >= 0 && top + i < s.h && left + j >= 0 && left + j < s.w;
        in[i][j] = inside ? load(from + (i * s.w + j) * s.c, int(lanes < LANES ? lanes : LANES)) : vec{};
      }
    }
  }
  turn(in, out);
}

// Whether a number of `x` is infinite or NaN, as a vector of masks to be collected by |.
KERASOFT_INLINE ivec not_finite(vec x) { return (x - x) != vec{}; }

inline bool any(ivec mask) {
  int32_t lanes[LANES], found = 0;
  std::memcpy(lanes, &mask, sizeof lanes);
  for (int32_t lane : lanes) found |= lane;
  return found != 0;
}

// Whether the first `lanes` lanes of all `sums` are NaN, and so will stay.
template <size_t N>
inline bool all_nan(const vec (&sums)[N], int64_t count, int lanes) {
  ivec numbers{};
  for (int64_t i = 0; i < count; ++i) numbers |= sums[i] == sums[i];
  int32_t found[LANES], left = 0;
  std::memcpy(found, &numbers, sizeof found);
  for (int lane = 0; lane < lanes; ++lane) left |= found[lane];
  return left == 0;
}

}  // namespace winograd
}  // namespace kerasoft
