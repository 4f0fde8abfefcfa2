// Products of gemm.cpp for other kernels.
#pragma once

#include "parallel.h"

namespace kerasoft {

// C (m, n) = A (m, k) B (k, n); `transposed`: B is given as (n, k).
void multiply(ffi::ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* a, const float* b, bool transposed,
              float* c);

// C (m, n) = A' (m, k) B (k, n) with A given as (k, m); and the sums of B's columns, unless `sums` is null.
void multiply_transposed(ffi::ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c,
                         float* sums);

}  // namespace kerasoft
