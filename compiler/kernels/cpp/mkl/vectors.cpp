// Functions of each element by MKL (VML), correctly rounded but for the last bit.
#include <algorithm>

#include "mkl.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;

constexpr int64_t kAccurate = 2, kDenormals = 0x140000, kQuiet = 0x100;
constexpr int64_t kLeast = 8192;  // elements that are worth a thread

ffi::Error apply(ffi::ThreadPool pool, int64_t function, Floats x, ffi::Result<Floats> y) {
  const auto run = mkl::functions().vector[function];
  const int64_t n = x.element_count(), parts = std::max<int64_t>(1, std::min(thread_count(pool) * 4, n / kLeast));
  parallel_for(pool, parts, [&](int64_t part) {
    const Range r = range_of(n, parts, part);
    run(int(r.end - r.begin), x.typed_data() + r.begin, y->typed_data() + r.begin, kAccurate | kDenormals | kQuiet);
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    MklVector, apply, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<int64_t>("function").Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("mkl_vector", MklVector);

}  // namespace
}  // namespace kerasoft
