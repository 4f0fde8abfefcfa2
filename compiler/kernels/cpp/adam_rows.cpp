// Adam on the rows of tables that a batch looks up: brought up to date and taken out, later updated in place.
//
// chain_rows says once for all tables with the same ids which rows there are and which positions of the batch look each of
// them up; the other kernels go through the rows and read or write param, m and v of each together. Rows lie anywhere in
// memory, so those ahead are fetched meanwhile.

#include <algorithm>
#include <cmath>
#include <limits>

#include "registry.h"
#include "table_rows.h"
#include "vectors.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Float = ffi::BufferR0<ffi::F32>;
using Int = ffi::BufferR0<ffi::S32>;
using FloatsOut = ffi::Result<Floats>;
using IntsOut = ffi::Result<Ints>;

constexpr int64_t kAhead = 6;    // rows
constexpr int64_t kLeast = 8192;  // floats that are worth threads
constexpr int64_t kMostNodes = 16;

// What chain_rows gives, int32[5 l + 1]: the first position of each row, its id (-1 outside of the table), the step when
// it was last up to date; for each position the next one of the same row, or -1, and the first; the number of rows.
struct Chains {
  explicit Chains(int32_t* all, int64_t l) : head(all), id(all + l), last(all + 2 * l), next(all + 3 * l), owner(all + 4 * l), count(all + 5 * l) {}
  int32_t *head, *id, *last, *next, *owner, *count;
};

ffi::Error chain_rows(Ints ids, Ints last, Ints places, Int iteration, IntsOut chained, IntsOut touched, IntsOut noted) {
  const int64_t l = ids.element_count(), n = last.element_count();
  const int32_t now = *iteration.typed_data();
  Chains to(chained->typed_data(), l);
  int32_t *step = touched->typed_data(), *place = noted->typed_data();
  if (step != last.typed_data()) std::copy_n(last.typed_data(), n, step);
  if (place != places.typed_data()) std::copy_n(places.typed_data(), n, place);
  Workspace space(size_t(2 * l) * sizeof(int32_t));
  int32_t *tail = static_cast<int32_t*>(space.data()), *id = tail + l, rows = 0;
  for (int64_t i = 0; i < l; ++i) {
    const int32_t x = id[i] = int32_t(row_of(ids.typed_data()[i], n));
    to.next[i] = -1;
    if (x >= 0) {
      int32_t first = place[x];  // whatever an earlier step left here is no earlier position of the same id
      if (first >= 0 && first < i && id[first] == x) {
        to.next[tail[first]] = i;
        tail[first] = i;
        to.owner[i] = first;
        continue;
      }
      place[x] = tail[i] = i;
    }
    to.owner[i] = i;
    to.head[rows] = i, to.id[rows] = x, to.last[rows] = x >= 0 ? step[x] : 0;
    ++rows;
    if (x >= 0) step[x] = now + 1;
  }
  *to.count = rows;
  return ffi::Error::Success();
}

// The idle steps of a row; docs/design/0007.
struct Idle {
  float log_beta_1, log_beta_2, epsilon;
  ffi::Span<const float> scales;  // sqrt(beta_2)^j of each node j
  bool decays;
  const float* coefficients[kMostNodes + 1];  // [left of the weight,] of each node; float32[history + 1]
  int64_t history;
  int32_t iteration, base;

  Idle(float b1, float b2, float e, ffi::Span<const float> s, bool d, ffi::RemainingArgs& columns, Int now, Int first)
      : log_beta_1(b1), log_beta_2(b2), epsilon(e), scales(s), decays(d), history(0),
        iteration(*now.typed_data()), base(*first.typed_data()) {
    for (size_t i = 0; i < columns.size() && i <= kMostNodes; ++i) {
      auto column = columns.get<Floats>(i);
      coefficients[i] = column->typed_data();
      history = column->element_count() - 1;
    }
  }

  // What the slots of a row have left.
  float m_left(int32_t last) const { return std::exp(float(iteration - last) * log_beta_1); }
  float v_left(int32_t last) const { return std::exp(float(iteration - last) * log_beta_2); }

  // The weights of a row last up to date in step `last`, from `param` to `to`.
  void move(const float* param, const float* m, const float* v, int32_t last, int64_t width, float* to) const {
    const int64_t at = std::clamp<int64_t>(int64_t(last) - base, 0, history);
    const size_t nodes = scales.size();
    const float left = decays ? coefficients[0][at] : 1.0f;
    float sums[kMostNodes];
    for (size_t k = 0; k < nodes; ++k) sums[k] = coefficients[k + decays][at];
    for (int64_t c = 0; c < width; c += LANES) {
      const int count = int(std::min<int64_t>(LANES, width - c));
      vec s = root(load(v + c, count)), way{};
      for (size_t k = 0; k < nodes; ++k) way += sums[k] / (s * scales[k] + epsilon);
      store(to + c, load(param + c, count) * left - load(m + c, count) * way, count);
    }
  }
};

// Rows at the positions that look them up, as after `iteration` steps; NaN where the id is outside.
ffi::Error take_adam_rows(ffi::ThreadPool pool, float b1, float b2, float epsilon, ffi::Span<const float> scales,
                          bool decays, Floats param, Floats m, Floats v, Ints chained, Int iteration, Int base,
                          ffi::RemainingArgs columns, FloatsOut out) {
  const int64_t l = (chained.element_count() - 1) / 5, width = l ? out->element_count() / l : 0;
  const Chains rows(chained.typed_data(), l);
  const Idle idle(b1, b2, epsilon, scales, decays, columns, iteration, base);
  const float *ps = param.typed_data(), *ms = m.typed_data(), *vs = v.typed_data();
  float* to = out->typed_data();
  const auto ahead = [&](int64_t u) {
    if (rows.id[u] < 0) return;
    const int64_t at = rows.id[u] * width;
    fetch(ps + at, width);
    if (rows.last[u] != idle.iteration) fetch(ms + at, width), fetch(vs + at, width);
  };
  const int64_t parts = parts_of(pool, *rows.count, width, kLeast);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(*rows.count, parts, part);
    for (int64_t u = r.begin; u < std::min(r.begin + kAhead, r.end); ++u) ahead(u);
    for (int64_t u = r.begin; u < r.end; ++u) {
      if (u + kAhead < r.end) ahead(u + kAhead);
      const int64_t at = rows.id[u] * width;
      float* row = to + rows.head[u] * width;
      if (rows.id[u] < 0) {
        std::fill_n(row, width, std::numeric_limits<float>::quiet_NaN());
      } else if (rows.last[u] == idle.iteration) {
        std::copy_n(ps + at, width, row);
      } else {
        idle.move(ps + at, ms + at, vs + at, rows.last[u], width, row);
      }
      for (int32_t i = rows.next[rows.head[u]]; i >= 0; i = rows.next[i]) std::copy_n(row, width, to + i * width);
    }
  });
  return ffi::Error::Success();
}

// Adam's step on these rows, in place: `now` are the weights that take_adam_rows gave, `gradients` (l, d) those of the
// positions, added up in their order. rate: of the step; decay: what the weights lose before it.
ffi::Error step_adam_rows(ffi::ThreadPool pool, float b1, float b2, float epsilon, float more_1, float more_2, float clip,
                          Floats param, Floats m, Floats v, Ints chained, Floats now, Floats gradients, Int iteration,
                          Float rate, Float decay, FloatsOut param_out, FloatsOut m_out, FloatsOut v_out) {
  const int64_t l = (chained.element_count() - 1) / 5, width = l ? now.element_count() / l : 0;
  const Chains rows(chained.typed_data(), l);
  const int32_t step = *iteration.typed_data();
  float *ps = param_out->typed_data(), *ms = m_out->typed_data(), *vs = v_out->typed_data();
  if (ps != param.typed_data()) std::copy_n(param.typed_data(), param.element_count(), ps);
  if (ms != m.typed_data()) std::copy_n(m.typed_data(), m.element_count(), ms);
  if (vs != v.typed_data()) std::copy_n(v.typed_data(), v.element_count(), vs);
  const float alpha = *rate.typed_data(), lost = *decay.typed_data();
  const float *given = gradients.typed_data(), *weights = now.typed_data();
  const auto ahead = [&](int64_t u) {
    if (rows.id[u] < 0) return;
    const int64_t at = rows.id[u] * width;
    fetch<true>(ps + at, width), fetch<true>(ms + at, width), fetch<true>(vs + at, width);
  };
  const int64_t parts = parts_of(pool, *rows.count, width, kLeast);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(*rows.count, parts, part);
    Workspace space(size_t(width) * sizeof(float));
    for (int64_t u = r.begin; u < std::min(r.begin + kAhead, r.end); ++u) ahead(u);
    for (int64_t u = r.begin; u < r.end; ++u) {
      if (u + kAhead < r.end) ahead(u + kAhead);
      if (rows.id[u] < 0) continue;
      const int64_t at = rows.id[u] * width, head = rows.head[u];
      const float gap = float(step - rows.last[u]);
      const float m_left = gap ? std::exp(gap * b1) : 1.0f, v_left = gap ? std::exp(gap * b2) : 1.0f;
      const float* gradient = given + head * width;
      if (rows.next[head] >= 0) {
        float* __restrict sum = space.floats();
        std::copy_n(gradient, width, sum);
        for (int32_t i = rows.next[head]; i >= 0; i = rows.next[i])
          for (int64_t c = 0; c < width; ++c) sum[c] += given[i * width + c];
        gradient = sum;
      }
      for (int64_t c = 0; c < width; c += LANES) {
        const int count = int(std::min<int64_t>(LANES, width - c));
        vec g = at_most(at_least(load(gradient + c, count), -clip), clip);
        vec x = load(ms + at + c, count) * m_left, y = load(vs + at + c, count) * v_left;
        vec w = load(weights + head * width + c, count);
        x += (g - x) * more_1;
        y += (g * g - y) * more_2;
        w -= w * lost;
        store(ps + at + c, w - x * alpha / (root(y) + epsilon), count);
        store(ms + at + c, x, count);
        store(vs + at + c, y, count);
      }
    }
  });
  return ffi::Error::Success();
}

inline bool all_zero(const float* row, int64_t width) {
  for (int64_t c = 0; c < width; c += LANES) {
    vec x = load(row + c, int(std::min<int64_t>(LANES, width - c)));
    for (int i = 0; i < LANES; ++i)
      if (x[i] != 0.0f) return false;
  }
  return true;
}

// All rows as after `iteration` steps, in place.
ffi::Error settle_adam_rows(ffi::ThreadPool pool, float b1, float b2, float epsilon, ffi::Span<const float> scales,
                            bool decays, Floats param, Floats m, Floats v, Ints last, Int iteration, Int base,
                            ffi::RemainingArgs columns, FloatsOut param_out, FloatsOut m_out, FloatsOut v_out) {
  const int64_t n = last.element_count(), width = n ? param.element_count() / n : 0;
  const Idle idle(b1, b2, epsilon, scales, decays, columns, iteration, base);
  const int32_t* steps = last.typed_data();
  const bool placed[] = {param_out->typed_data() == param.typed_data(), m_out->typed_data() == m.typed_data(),
                         v_out->typed_data() == v.typed_data()};
  const int64_t parts = parts_of(pool, n, width, kLeast) == 1 ? 1 : thread_count(pool) * 16;
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(n, parts, part);
    for (int64_t i = r.begin; i < r.end; ++i) {
      float *p = param_out->typed_data() + i * width, *x = m_out->typed_data() + i * width;
      float* y = v_out->typed_data() + i * width;
      if (!placed[0]) std::copy_n(param.typed_data() + i * width, width, p);
      if (!placed[1]) std::copy_n(m.typed_data() + i * width, width, x);
      if (!placed[2]) std::copy_n(v.typed_data() + i * width, width, y);
      if (steps[i] == idle.iteration) continue;
      if (!decays && all_zero(x, width) && all_zero(y, width)) continue;  // nobody has ever looked it up
      idle.move(p, x, y, steps[i], width, p);
      const float m_left = idle.m_left(steps[i]), v_left = idle.v_left(steps[i]);
      for (int64_t c = 0; c < width; ++c) x[c] *= m_left;
      for (int64_t c = 0; c < width; ++c) y[c] *= v_left;
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ChainRows, chain_rows,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Ints>().Arg<Int>().Ret<Ints>().Ret<Ints>().Ret<Ints>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(TakeAdamRows, take_adam_rows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("log_beta_1")
                                  .Attr<float>("log_beta_2")
                                  .Attr<float>("epsilon")
                                  .Attr<ffi::Span<const float>>("scales")
                                  .Attr<bool>("decays")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Ints>()
                                  .Arg<Int>()
                                  .Arg<Int>()
                                  .RemainingArgs()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(StepAdamRows, step_adam_rows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("log_beta_1")
                                  .Attr<float>("log_beta_2")
                                  .Attr<float>("epsilon")
                                  .Attr<float>("more_1")
                                  .Attr<float>("more_2")
                                  .Attr<float>("clip")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Ints>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Int>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SettleAdamRows, settle_adam_rows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("log_beta_1")
                                  .Attr<float>("log_beta_2")
                                  .Attr<float>("epsilon")
                                  .Attr<ffi::Span<const float>>("scales")
                                  .Attr<bool>("decays")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Ints>()
                                  .Arg<Int>()
                                  .Arg<Int>()
                                  .RemainingArgs()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

KERASOFT_TARGET("chain_rows", ChainRows);
KERASOFT_TARGET("take_adam_rows", TakeAdamRows);
KERASOFT_TARGET("step_adam_rows", StepAdamRows);
KERASOFT_TARGET("settle_adam_rows", SettleAdamRows);

}  // namespace kerasoft
