// A step of Adam over vectors, in place, in one pass: seven numbers of memory traffic for a weight in place of eleven.
//
//   m <- m + (g - m) (1 - beta_1), v <- v + (g g - v) (1 - beta_2), param <- param - m alpha / (sqrt(v) + epsilon)
//
// Each element is computed in the same way wherever it stands, so that slices give the bits of the whole.
#include "parallel.h"
#include "registry.h"
#include "vectors.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;

constexpr int64_t kPiece = 16384;  // elements that a thread takes at a time

ffi::Error Adam(ffi::ThreadPool pool, float keep_1, float keep_2, float epsilon, Floats param, Floats gradient, Floats m,
                Floats v, Floats alpha, ffi::Result<Floats> param_out, ffi::Result<Floats> m_out,
                ffi::Result<Floats> v_out) {
  const int64_t n = param.element_count();
  const float rate = *alpha.typed_data();
  const float *p = param.typed_data(), *g = gradient.typed_data(), *ms = m.typed_data(), *vs = v.typed_data();
  float *to = param_out->typed_data(), *m_to = m_out->typed_data(), *v_to = v_out->typed_data();
  parallel_for(pool, (n + kPiece - 1) / kPiece, [&](int64_t piece) {
    const int64_t end = n - piece * kPiece < kPiece ? n : (piece + 1) * kPiece;
    for (int64_t i = piece * kPiece; i < end; i += LANES) {
      const int lanes = int(end - i < LANES ? end - i : LANES);
      const vec slope = load(g + i, lanes);
      vec mean = load(ms + i, lanes), square = load(vs + i, lanes);
      mean += (slope - mean) * keep_1;
      square += (slope * slope - square) * keep_2;
      store(m_to + i, mean, lanes);
      store(v_to + i, square, lanes);
      store(to + i, load(p + i, lanes) - mean * rate / (root(square) + epsilon), lanes);
    }
  });
  return ffi::Error::Success();
}

// The first of its inputs, a number.
ffi::Error After(ffi::RemainingArgs inputs, ffi::Result<Floats> value) {
  *value->typed_data() = *inputs.get<Floats>(0)->typed_data();
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(AdamHandler, Adam,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<float>("keep_1")
                           .Attr<float>("keep_2")
                           .Attr<float>("epsilon")
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>());

XLA_FFI_DEFINE_HANDLER(AfterHandler, After, ffi::Ffi::Bind().RemainingArgs().Ret<Floats>());

KERASOFT_TARGET("adam", AdamHandler);
KERASOFT_TARGET("after", AfterHandler);

}  // namespace kerasoft
