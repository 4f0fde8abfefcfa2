// Maximum over sliding windows of (batch, height, width, channels), and its gradient.
//
// Images and blocks of channels are cut among the threads. The gradient goes to the first largest cell of a window in
// row-major order, as in XLA and Keras; it reads x again instead of keeping indices.
#include <algorithm>
#include <cstring>
#include <limits>

#include "parallel.h"
#include "registry.h"

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

void forward(const Window& w, const float* x, float* y, int64_t image, int64_t first, int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  float* out = y + image * w.out_height * w.out_width * w.channels + first;
  for (int64_t i = 0; i < w.out_height; ++i) {
    int64_t r0 = std::max<int64_t>(0, i * w.down - w.top), r1 = std::min(w.height, i * w.down - w.top + w.rows);
    for (int64_t j = 0; j < w.out_width; ++j) {
      int64_t c0 = std::max<int64_t>(0, j * w.right - w.left), c1 = std::min(w.width, j * w.right - w.left + w.columns);
      float best[kChannels];
      for (int64_t c = 0; c < kChannels; ++c) best[c] = -std::numeric_limits<float>::infinity();
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t col = c0; col < c1; ++col) {
          const float* __restrict cell = in + (r * w.width + col) * w.channels;
          for (int64_t c = 0; c < count; ++c) {
            float v = cell[c];
            best[c] = (v > best[c] || v != v) ? v : best[c];  // NaN wins
          }
        }
      std::memcpy(out + (i * w.out_width + j) * w.channels, best, count * sizeof(float));
    }
  }
}

void gradient(const Window& w, const float* x, const float* dy, float* dx, int64_t image, int64_t first,
              int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  const float* given = dy + image * w.out_height * w.out_width * w.channels + first;
  float* out = dx + image * w.height * w.width * w.channels + first;
  for (int64_t cell = 0; cell < w.height * w.width; ++cell) std::memset(out + cell * w.channels, 0, count * sizeof(float));
  for (int64_t i = 0; i < w.out_height; ++i) {
    int64_t r0 = std::max<int64_t>(0, i * w.down - w.top), r1 = std::min(w.height, i * w.down - w.top + w.rows);
    for (int64_t j = 0; j < w.out_width; ++j) {
      int64_t c0 = std::max<int64_t>(0, j * w.right - w.left), c1 = std::min(w.width, j * w.right - w.left + w.columns);
      float best[kChannels];
      int32_t chosen[kChannels] = {0};
      bool begun = false;
      int32_t k = 0;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t col = c0; col < c1; ++col, ++k) {
          const float* __restrict cell = in + (r * w.width + col) * w.channels;
          if (!begun) {
            std::memcpy(best, cell, count * sizeof(float));
            begun = true;
            continue;
          }
          for (int64_t c = 0; c < count; ++c) {
            bool better = cell[c] > best[c];
            chosen[c] = better ? k : chosen[c];
            best[c] = better ? cell[c] : best[c];
          }
        }
      const float* __restrict d = given + (i * w.out_width + j) * w.channels;
      k = 0;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t col = c0; col < c1; ++col, ++k) {
          float* __restrict cell = out + (r * w.width + col) * w.channels;
          for (int64_t c = 0; c < count; ++c) cell[c] += chosen[c] == k ? d[c] : 0.0f;
        }
    }
  }
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
