// exp of a vector, relative error below 1.2e-7, for arguments up to 88; 0 below -87.3; NaN stays NaN.
//
// Source: the reduction and the polynomial of Cephes' expf (Moshier 1989).
#pragma once

#include "product.h"

namespace kerasoft {

typedef int32_t VecInt __attribute__((vector_size(4 * kLanes)));

inline Vec exponential(Vec x) {
  const float lowest = -87.33654f;
  Vec kept = x < lowest ? Vec{} + lowest : x;
  Vec n = kept * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
  n -= 12582912.0f;
  Vec r = kept - n * 0.693359375f;
  r += n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  VecInt bits = (__builtin_convertvector(n, VecInt) + 127) << 23;
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  return x < lowest ? Vec{} : p * power;
}

inline float sum_of(Vec v) {
  float lanes[kLanes], total = 0;
  store(lanes, v);
  for (int i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

inline float largest_of(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  float most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

}  // namespace kerasoft
