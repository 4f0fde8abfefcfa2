// The table of this library's XLA FFI handlers, and MKL's functions, found by name.
#include "mkl.h"

#include <dlfcn.h>

#include <string>

extern "C" __attribute__((visibility("default"))) const kerasoft::Target* kerasoft_mkl_targets() {
  static const std::vector<kerasoft::Target> table = [] {
    auto all = kerasoft::targets();
    all.push_back({nullptr, nullptr});
    return all;
  }();
  return table.data();
}

namespace kerasoft {
namespace mkl {

static Functions found;  // written before the first call of a handler

const Functions& functions() { return found; }

}  // namespace mkl

// Takes the functions from an open libmkl_rt; the name of one that it lacks, or null.
extern "C" __attribute__((visibility("default"))) const char* kerasoft_mkl_use(void* library) {
  mkl::Functions f;
  const char* missing = nullptr;
  const auto get = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (!function) missing = name;
  };
#define KERASOFT_MKL(NAME) get(f.NAME, #NAME)
  KERASOFT_MKL(cblas_sgemm);
  KERASOFT_MKL(cblas_gemm_bf16bf16f32);
  KERASOFT_MKL(cblas_gemm_s8u8s32);
  KERASOFT_MKL(mkl_sparse_s_create_csr);
  KERASOFT_MKL(mkl_sparse_s_mm);
  KERASOFT_MKL(mkl_sparse_destroy);
  KERASOFT_MKL(DftiCreateDescriptor_s_1d);
  KERASOFT_MKL(DftiCreateDescriptor_s_md);
  KERASOFT_MKL(DftiSetValue);
  KERASOFT_MKL(DftiCommitDescriptor);
  KERASOFT_MKL(DftiComputeForward);
  KERASOFT_MKL(DftiComputeBackward);
#undef KERASOFT_MKL
  for (size_t i = 0; i < std::size(mkl::kVector); ++i) get(f.vector[i], mkl::kVector[i]);
  if (!missing) mkl::found = f;
  return missing;
}

}  // namespace kerasoft
