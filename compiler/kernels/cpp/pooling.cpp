// Maximum over sliding windows of (batch, height, width, channels), and its gradient.
//
// Images and blocks of channels are cut among the threads. The gradient goes to the first largest cell of a window in
// row-major order, as in XLA and Keras; it reads x again instead of keeping indices.
#include <algorithm>
#include <cstring>
#include <limits>

#include "parallel.h"
#include "registry.h"
#include "vectors.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;
using Spec = ffi::Span<const int64_t>;

constexpr int64_t kChannels = 64;  // of a block

struct Window {
  int64_t batch, height, width, channels, out_height, out_width, rows, columns, down, right, top, left;

  explicit Window(Spec spec) {
    int64_t* all[] = {&batch, &height, &width, &channels, &out_height, &out_width,
                      &rows,  &columns, &down, &right,    &top,        &left};
    for (size_t i = 0; i < 12; ++i) *all[i] = spec[i];
  }
  int64_t blocks() const { return (channels + kChannels - 1) / kChannels; }
};

template <typename Body>
void each_block(ffi::ThreadPool& pool, const Window& w, const Body& body) {
  int64_t tasks = w.batch * w.blocks();
  int64_t parts = std::min<int64_t>(tasks, thread_count(pool) * 4);
  if (w.batch * w.height * w.width * w.channels < 16384) parts = std::min<int64_t>(parts, 1);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(tasks, parts, part);
    for (int64_t task = r.begin; task < r.end; ++task) {
      int64_t first = task % w.blocks() * kChannels;
      body(task / w.blocks(), first, std::min(kChannels, w.channels - first));
    }
  });
}

// Rows and columns of x that a window covers.
struct Cells {
  int64_t r0, r1, c0, c1;

  Cells(const Window& w, int64_t i, int64_t j)
      : r0(std::max<int64_t>(0, i * w.down - w.top)),
        r1(std::min(w.height, i * w.down - w.top + w.rows)),
        c0(std::max<int64_t>(0, j * w.right - w.left)),
        c1(std::min(w.width, j * w.right - w.left + w.columns)) {}
};

// `kWhole`: all lanes count, else the first `count`.
template <bool kWhole>
KERASOFT_INLINE vec some(const float* from, int count) {
  return kWhole ? load(from) : load(from, count);
}

template <bool kWhole>
KERASOFT_INLINE void put(float* to, vec x, int count) {
  kWhole ? store(to, x) : store(to, x, count);
}

template <bool kWhole>
KERASOFT_INLINE void largest(const Window& w, const Cells& at, const float* in, float* out, int count) {
  vec best = all(-std::numeric_limits<float>::infinity());
  for (int64_t r = at.r0; r < at.r1; ++r) {
    const float* cell = in + (r * w.width + at.c0) * w.channels;
    for (int64_t c = at.c0; c < at.c1; ++c, cell += w.channels) {
      vec v = some<kWhole>(cell, count);
      best = ((v > best) | (v != v)) ? v : best;  // NaN wins
    }
  }
  put<kWhole>(out, best, count);
}

void forward(const Window& w, const float* x, float* y, int64_t image, int64_t first, int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  float* out = y + image * w.out_height * w.out_width * w.channels + first;
  for (int64_t i = 0; i < w.out_height; ++i)
    for (int64_t j = 0; j < w.out_width; ++j, out += w.channels) {
      const Cells at(w, i, j);
      int64_t c = 0;
      for (; c + LANES <= count; c += LANES) largest<true>(w, at, in + c, out + c, LANES);
      if (c < count) largest<false>(w, at, in + c, out + c, int(count - c));
    }
}

template <bool kWhole>
KERASOFT_INLINE void spread(const Window& w, const Cells& at, const float* in, const float* given, float* out,
                            int count) {
  vec best = some<kWhole>(in + (at.r0 * w.width + at.c0) * w.channels, count);
  ivec chosen = ivec{}, k = ivec{};
  for (int64_t r = at.r0; r < at.r1; ++r) {
    const float* cell = in + (r * w.width + at.c0) * w.channels;
    for (int64_t c = at.c0; c < at.c1; ++c, cell += w.channels, k += 1) {
      vec v = some<kWhole>(cell, count);
      ivec better = v > best;
      chosen = better ? k : chosen;
      best = better ? v : best;
    }
  }
  const vec d = some<kWhole>(given, count);
  k = ivec{};
  for (int64_t r = at.r0; r < at.r1; ++r) {
    float* cell = out + (r * w.width + at.c0) * w.channels;
    for (int64_t c = at.c0; c < at.c1; ++c, cell += w.channels, k += 1)
      put<kWhole>(cell, some<kWhole>(cell, count) + (chosen == k ? d : vec{}), count);
  }
}

void gradient(const Window& w, const float* x, const float* dy, float* dx, int64_t image, int64_t first,
              int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  const float* given = dy + image * w.out_height * w.out_width * w.channels + first;
  float* out = dx + image * w.height * w.width * w.channels + first;
  int64_t cleared = 0;  // cells; just before a window comes to them, while they stay in the cache
  auto clear = [&](int64_t end) {
    for (; cleared < end; ++cleared) std::memset(out + cleared * w.channels, 0, count * sizeof(float));
  };
  for (int64_t i = 0; i < w.out_height; ++i) {
    clear(Cells(w, i, 0).r1 * w.width);
    for (int64_t j = 0; j < w.out_width; ++j, given += w.channels) {
      const Cells at(w, i, j);
      if (at.r0 >= at.r1 || at.c0 >= at.c1) continue;
      int64_t c = 0;
      for (; c + LANES <= count; c += LANES) spread<true>(w, at, in + c, given + c, out + c, LANES);
      if (c < count) spread<false>(w, at, in + c, given + c, out + c, int(count - c));
    }
  }
  clear(w.height * w.width);
}

ffi::Error MaxForward(ffi::ThreadPool pool, Spec spec, Floats x, Result y) {
  Window w(spec);
  const float* in = x.typed_data();
  float* out = y->typed_data();
  each_block(pool, w, [&](int64_t image, int64_t first, int64_t n) { forward(w, in, out, image, first, n); });
  return ffi::Error::Success();
}

ffi::Error MaxGradient(ffi::ThreadPool pool, Spec spec, Floats x, Floats dy, Result dx) {
  Window w(spec);
  const float *in = x.typed_data(), *given = dy.typed_data();
  float* out = dx->typed_data();
  each_block(pool, w,
             [&](int64_t image, int64_t first, int64_t n) { gradient(w, in, given, out, image, first, n); });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPool, MaxForward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    MaxPoolGrad, MaxGradient,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("max_pool", MaxPool);
KERASOFT_TARGET("max_pool_grad", MaxPoolGrad);

}  // namespace kerasoft
