// MKL's functions as this library calls them. MKL is neither linked nor needed to build this:
// kerasoft.compiler.kernels.bridge opens libmkl_rt, tells it to run without threads of its own, and hands it over; work is
// cut among XLA's threads here. Sizes are 32-bit integers.
#pragma once

#include <cstdint>

#include "../parallel.h"
#include "../registry.h"

namespace kerasoft {
namespace mkl {

constexpr int kRowMajor = 101, kAsItIs = 111, kTransposed = 112, kOneOffset = 173;

struct Description {  // matrix_descr
  int type, fill, diagonal;
};

// One for each of MKL's functions, null until MKL has been handed over.
struct Functions {
  void (*cblas_sgemm)(int layout, int ta, int tb, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
                      int ldb, float beta, float* c, int ldc);
  void (*cblas_gemm_bf16bf16f32)(int layout, int ta, int tb, int m, int n, int k, float alpha, const uint16_t* a, int lda,
                                 const uint16_t* b, int ldb, float beta, float* c, int ldc);
  void (*cblas_gemm_s8u8s32)(int layout, int ta, int tb, int offset, int m, int n, int k, float alpha, const void* a, int lda,
                             int8_t ao, const void* b, int ldb, int8_t bo, float beta, int32_t* c, int ldc,
                             const int32_t* offsets);
  int (*mkl_sparse_s_create_csr)(void** made, int base, int rows, int columns, const int* begins, const int* ends,
                                 const int* places, const float* values);
  int (*mkl_sparse_s_mm)(int operation, float alpha, void* a, Description about, int layout, const float* b, int columns,
                         int ldb, float beta, float* c, int ldc);
  int (*mkl_sparse_destroy)(void* a);
  long (*DftiCreateDescriptor_s_1d)(void** made, int domain, long size);
  long (*DftiCreateDescriptor_s_md)(void** made, int domain, long axes, const long* sizes);
  long (*DftiSetValue)(void* descriptor, int parameter, ...);
  long (*DftiCommitDescriptor)(void* descriptor);
  long (*DftiComputeForward)(void* descriptor, void* from, ...);
  long (*DftiComputeBackward)(void* descriptor, void* from, ...);
  void (*vector[8])(int n, const float* from, float* to, int64_t mode);  // in the order of kVector
};

constexpr const char* kVector[] = {"vmsExp", "vmsExpm1", "vmsLn", "vmsLog1p", "vmsTanh", "vmsErf", "vmsSin", "vmsCos"};

// What was handed over.
const Functions& functions();

}  // namespace mkl
}  // namespace kerasoft
