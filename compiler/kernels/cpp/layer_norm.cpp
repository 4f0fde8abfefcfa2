// Layer normalisation over the last axis of x (rows, n), with its gradient: one pass over memory each.
//
// Forward: y = (x - mean) * share * gamma + beta with share = 1 / sqrt(variance + epsilon); a row is read three times, from
// the first cache. Saved are mean and share of each row. Gradient, with z = (x - mean) * share and g = dy * gamma:
// dx = share * (g - mean(g) - z * mean(g * z)), dgamma = sum of dy * z, dbeta = sum of dy over the rows; each thread sums
// its rows, and these sums are added in the order of the threads.
//
// Source: Ba, Kiros and Hinton 2016.
#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "registry.h"
#include "vectors.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;

float total_of(vec v) {
  float lanes[LANES], total = 0;
  store(lanes, v);
  for (float lane : lanes) total += lane;
  return total;
}

int64_t parts_of(ffi::ThreadPool& pool, int64_t rows, int64_t n) {
  return std::max<int64_t>(1, std::min<int64_t>(thread_count(pool), rows * n / 8192));
}

int lanes_left(int64_t n, int64_t i) { return int(std::min<int64_t>(LANES, n - i)); }

// x - mean where there is x, 0 in lanes beyond the row.
vec centred(const float* x, int64_t n, int64_t i, float mean) {
  vec v = load(x + i, lanes_left(n, i)) - mean;
  if (n - i >= LANES) return v;
  float lanes[LANES] = {};
  store(lanes, v, int(n - i));
  return load(lanes);
}

ffi::Error LayerNorm(ffi::ThreadPool pool, float epsilon, Floats x, Floats gamma, Floats beta, ffi::Result<Floats> y,
                     ffi::Result<Floats> saved) {
  const int64_t n = gamma.element_count(), rows = x.element_count() / n, parts = parts_of(pool, rows, n);
  const float *from = x.typed_data(), *gain = gamma.typed_data(), *shift = beta.typed_data();
  float *to = y->typed_data(), *keep = saved->typed_data();
  parallel_for(pool, parts, [&](int64_t part) {
    Range range = range_of(rows, parts, part);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* v = from + row * n;
      float* out = to + row * n;
      vec sum{}, squares{};
      for (int64_t i = 0; i < n; i += LANES) sum += load(v + i, lanes_left(n, i));
      const float mean = total_of(sum) / float(n);
      for (int64_t i = 0; i < n; i += LANES) {
        vec c = centred(v, n, i, mean);
        squares += c * c;
      }
      const float share = 1.0f / std::sqrt(total_of(squares) / float(n) + epsilon);
      for (int64_t i = 0; i < n; i += LANES) {
        int lanes = lanes_left(n, i);
        store(out + i, (load(v + i, lanes) - mean) * share * load(gain + i, lanes) + load(shift + i, lanes), lanes);
      }
      keep[2 * row] = mean, keep[2 * row + 1] = share;
    }
  });
  return ffi::Error::Success();
}

ffi::Error LayerNormGradient(ffi::ThreadPool pool, Floats x, Floats gamma, Floats saved, Floats dy,
                             ffi::Result<Floats> dx, ffi::Result<Floats> dgamma, ffi::Result<Floats> dbeta) {
  const int64_t n = gamma.element_count(), rows = x.element_count() / n, parts = parts_of(pool, rows, n);
  const float *from = x.typed_data(), *gain = gamma.typed_data(), *kept = saved.typed_data(), *slopes = dy.typed_data();
  float* to = dx->typed_data();
  const int64_t wide = (n + LANES - 1) / LANES * LANES;
  Workspace space(size_t(parts) * 2 * wide * sizeof(float));
  std::fill_n(space.floats(), parts * 2 * wide, 0.0f);
  parallel_for(pool, parts, [&](int64_t part) {
    Range range = range_of(rows, parts, part);
    float *gains = space.floats() + part * 2 * wide, *shifts = gains + wide;
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float *v = from + row * n, *d = slopes + row * n, mean = kept[2 * row], share = kept[2 * row + 1];
      float* out = to + row * n;
      vec level{}, along{};
      for (int64_t i = 0; i < n; i += LANES) {
        int lanes = lanes_left(n, i);
        vec z = (load(v + i, lanes) - mean) * share, s = load(d + i, lanes), g = s * load(gain + i, lanes);
        level += g, along += g * z;
        store(gains + i, load(gains + i) + s * z), store(shifts + i, load(shifts + i) + s);
      }
      const float middle = total_of(level) / float(n), slope = total_of(along) / float(n);
      for (int64_t i = 0; i < n; i += LANES) {
        int lanes = lanes_left(n, i);
        vec z = (load(v + i, lanes) - mean) * share, g = load(d + i, lanes) * load(gain + i, lanes);
        store(out + i, share * (g - middle - z * slope), lanes);
      }
    }
  });
  for (int64_t i = 0; i < n; ++i) {
    float gains = 0, shifts = 0;
    for (int64_t part = 0; part < parts; ++part) {
      gains += space.floats()[part * 2 * wide + i];
      shifts += space.floats()[part * 2 * wide + wide + i];
    }
    dgamma->typed_data()[i] = gains, dbeta->typed_data()[i] = shifts;
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(LayerNormHandler, LayerNorm,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<float>("epsilon")
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER(LayerNormGradientHandler, LayerNormGradient,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>());

KERASOFT_TARGET("layer_norm", LayerNormHandler);
KERASOFT_TARGET("layer_norm_grad", LayerNormGradientHandler);

}  // namespace kerasoft
