// Maximum and mean over sliding windows of (batch, height, width, channels), and their gradients.
//
// Images and blocks of channels are cut among the threads. The gradient of a maximum goes to the first largest cell of a
// window in row-major order, as in XLA and Keras; it reads x again instead of keeping indices. A mean is over the cells of
// its window that lie inside x.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

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
  int64_t count() const { return std::max<int64_t>(0, r1 - r0) * std::max<int64_t>(0, c1 - c0); }
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

// body(c, n): the vector of channels from c on, of which n count; whole ones first.
template <typename Body>
KERASOFT_INLINE void each_vector(int64_t count, const Body& body) {
  int64_t c = 0;
  for (; c + LANES <= count; c += LANES) body(std::true_type(), c, LANES);
  if (c < count) body(std::false_type(), c, int(count - c));
}

void forward(const Window& w, const float* x, float* y, int64_t image, int64_t first, int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  float* out = y + image * w.out_height * w.out_width * w.channels + first;
  for (int64_t i = 0; i < w.out_height; ++i)
    for (int64_t j = 0; j < w.out_width; ++j, out += w.channels) {
      const Cells at(w, i, j);
      each_vector(count, [&](auto whole, int64_t c, int lanes) { largest<whole.value>(w, at, in + c, out + c, lanes); });
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

void mean(const Window& w, const float* x, float* y, int64_t image, int64_t first, int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  float* out = y + image * w.out_height * w.out_width * w.channels + first;
  for (int64_t i = 0; i < w.out_height; ++i)
    for (int64_t j = 0; j < w.out_width; ++j, out += w.channels) {
      const Cells at(w, i, j);
      const float share = 1.0f / float(at.count());
      each_vector(count, [&](auto whole, int64_t first, int lanes) {
        vec sum = {};
        for (int64_t r = at.r0; r < at.r1; ++r) {
          const float* cell = in + (r * w.width + at.c0) * w.channels + first;
          for (int64_t c = at.c0; c < at.c1; ++c, cell += w.channels) sum += some<whole.value>(cell, lanes);
        }
        put<whole.value>(out + first, sum * share, lanes);
      });
    }
}

// Clears cells of a gradient just before a window comes to them, so that they stay in the cache.
class Clearing {
 public:
  Clearing(const Window& w, float* out, int64_t channels) : w_(w), out_(out), channels_(channels) {}
  void up_to(int64_t row) {
    for (; cleared_ < row * w_.width; ++cleared_)
      std::memset(out_ + cleared_ * w_.channels, 0, channels_ * sizeof(float));
  }

 private:
  const Window& w_;
  float* out_;
  const int64_t channels_;
  int64_t cleared_ = 0;
};

void mean_gradient(const Window& w, const float* dy, float* dx, int64_t image, int64_t first, int64_t count) {
  const float* given = dy + image * w.out_height * w.out_width * w.channels + first;
  float* out = dx + image * w.height * w.width * w.channels + first;
  Clearing clearing(w, out, count);
  for (int64_t i = 0; i < w.out_height; ++i) {
    clearing.up_to(Cells(w, i, 0).r1);
    for (int64_t j = 0; j < w.out_width; ++j, given += w.channels) {
      const Cells at(w, i, j);
      const float share = 1.0f / float(at.count());
      each_vector(count, [&](auto whole, int64_t first, int lanes) {
        const vec d = some<whole.value>(given + first, lanes) * share;
        for (int64_t r = at.r0; r < at.r1; ++r) {
          float* cell = out + (r * w.width + at.c0) * w.channels + first;
          for (int64_t c = at.c0; c < at.c1; ++c, cell += w.channels)
            put<whole.value>(cell, some<whole.value>(cell, lanes) + d, lanes);
        }
      });
    }
  }
  clearing.up_to(w.height);
}

void gradient(const Window& w, const float* x, const float* dy, float* dx, int64_t image, int64_t first,
              int64_t count) {
  const float* in = x + image * w.height * w.width * w.channels + first;
  const float* given = dy + image * w.out_height * w.out_width * w.channels + first;
  float* out = dx + image * w.height * w.width * w.channels + first;
  Clearing clearing(w, out, count);
  for (int64_t i = 0; i < w.out_height; ++i) {
    clearing.up_to(Cells(w, i, 0).r1);
    for (int64_t j = 0; j < w.out_width; ++j, given += w.channels) {
      const Cells at(w, i, j);
      if (at.r0 >= at.r1 || at.c0 >= at.c1) continue;
      each_vector(count, [&](auto whole, int64_t c, int lanes) {
        spread<whole.value>(w, at, in + c, given + c, out + c, lanes);
      });
    }
  }
  clearing.up_to(w.height);
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

ffi::Error MeanForward(ffi::ThreadPool pool, Spec spec, Floats x, Result y) {
  Window w(spec);
  const float* in = x.typed_data();
  float* out = y->typed_data();
  each_block(pool, w, [&](int64_t image, int64_t first, int64_t n) { mean(w, in, out, image, first, n); });
  return ffi::Error::Success();
}

ffi::Error MeanGradient(ffi::ThreadPool pool, Spec spec, Floats dy, Result dx) {
  Window w(spec);
  const float* given = dy.typed_data();
  float* out = dx->typed_data();
  each_block(pool, w, [&](int64_t image, int64_t first, int64_t n) { mean_gradient(w, given, out, image, first, n); });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPool, MaxForward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    MaxPoolGrad, MaxGradient,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(AveragePool, MeanForward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(AveragePoolGrad, MeanGradient,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("average_pool", AveragePool);
KERASOFT_TARGET("average_pool_grad", AveragePoolGrad);
KERASOFT_TARGET("max_pool", MaxPool);
KERASOFT_TARGET("max_pool_grad", MaxPoolGrad);

}  // namespace kerasoft
