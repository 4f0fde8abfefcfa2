// Fourier transforms over the last one or two axes by MKL: complex64, real to half, half to real.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "mkl.h"

namespace kerasoft {
namespace {

enum Kind : int64_t { kComplex = 0, kInverse = 1, kRealToHalf = 2, kHalfToReal = 3 };

// Of dfti's enumerations.
constexpr int kBackwardScale = 5, kTransforms = 7, kHalfStorage = 10, kPlacement = 11, kFromDistance = 14, kToDistance = 15;
constexpr int kComplexDomain = 32, kRealDomain = 33, kInterleaved = 39, kApart = 44;

// A committed descriptor of `count` transforms; any thread may compute by it. Null where MKL has none.
void* descriptor(Kind kind, const std::vector<long>& sizes, int64_t count) {
  static std::mutex* mutex = new std::mutex();
  static auto* known = new std::map<std::vector<long>, void*>();
  std::vector<long> key = sizes;
  key.push_back(kind), key.push_back(count);
  std::lock_guard<std::mutex> lock(*mutex);
  if (auto found = known->find(key); found != known->end()) return found->second;
  const mkl::Functions& f = mkl::functions();
  const int domain = kind == kComplex || kind == kInverse ? kComplexDomain : kRealDomain;
  void* made = nullptr;
  long status = sizes.size() == 1 ? f.DftiCreateDescriptor_s_1d(&made, domain, sizes[0])
                                  : f.DftiCreateDescriptor_s_md(&made, domain, long(sizes.size()), sizes.data());
  long whole = 1;
  for (long n : sizes) whole *= n;
  const long half = sizes.back() / 2 + 1;
  const auto set = [&](int parameter, auto value) { status = status ? status : f.DftiSetValue(made, parameter, value); };
  set(kPlacement, kApart);
  set(kTransforms, long(count));
  set(kFromDistance, kind == kHalfToReal ? half : whole);
  set(kToDistance, kind == kRealToHalf ? half : whole);
  if (domain == kRealDomain) set(kHalfStorage, kInterleaved);
  set(kBackwardScale, 1.0 / double(whole));
  status = status ? status : f.DftiCommitDescriptor(made);
  return (*known)[key] = status ? nullptr : made;
}

ffi::Error transform(ffi::ThreadPool pool, int64_t kind, ffi::Span<const int64_t> sizes, ffi::AnyBuffer x,
                     ffi::Result<ffi::AnyBuffer> y) {
  const Kind how = Kind(kind);
  const std::vector<long> axes(sizes.begin(), sizes.end());
  int64_t from = 1, to = 1;  // floats of one transform
  for (size_t i = 0; i < axes.size(); ++i) {
    const bool last = i + 1 == axes.size();
    const int64_t half = axes[i] / 2 + 1;
    from *= last && how == kHalfToReal ? half : axes[i];
    to *= last && how == kRealToHalf ? half : axes[i];
  }
  from *= how == kRealToHalf ? 1 : 2, to *= how == kHalfToReal ? 1 : 2;
  const int64_t count = int64_t(y->size_bytes() / sizeof(float)) / to;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(count, count * to < 8192 ? 1 : thread_count(pool)));
  std::atomic<long> failure{0};
  parallel_for(pool, parts, [&](int64_t part) {
    const Range r = range_of(count, parts, part);
    if (r.begin == r.end) return;
    void* made = descriptor(how, axes, r.end - r.begin);
    float* a = static_cast<float*>(x.untyped_data()) + r.begin * from;
    float* b = static_cast<float*>(y->untyped_data()) + r.begin * to;
    const mkl::Functions& f = mkl::functions();
    const auto compute = how == kComplex || how == kRealToHalf ? f.DftiComputeForward : f.DftiComputeBackward;
    const long status = made ? compute(made, a, b) : -1;
    if (status) failure = status;
  });
  if (failure) return ffi::Error::Internal("MKL's Fourier transform failed with status " + std::to_string(failure.load()));
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(MklFourier, transform,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("kind")
                                  .Attr<ffi::Span<const int64_t>>("sizes")
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

KERASOFT_TARGET("mkl_fourier", MklFourier);

}  // namespace
}  // namespace kerasoft
