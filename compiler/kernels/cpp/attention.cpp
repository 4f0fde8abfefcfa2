// softmax(scale q k' + bias) v for each head, and its gradient, without a matrix of all scores.
//
// A part takes heads (and queries, where there are few heads) and goes through blocks of queries and of keys; a block of
// scores stays in cache. Forward keeps the largest score of each row so far, the sum and the output relative to it, and
// corrects them when a larger one comes. Backward computes the scores again from what forward saved of each row: its
// largest score and 1 / its sum (together they also serve rows that see nothing, where log(sum) would be lost).
//
// Shapes: q (b, t, h, d), k (b, s, g, d), v (b, s, g, e), out (b, t, h, e), saved (b, h, t, 2); h is a multiple of g.
//
// Source: Milakov & Gimelshein 2018 (online softmax); Dao, "FlashAttention-2", 2023, algorithms 1 and 2.
#include <algorithm>
#include <cmath>
#include <limits>

#include "exponential.h"
#include "parallel.h"
#include "product.h"
#include "registry.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
constexpr int64_t kQueries = 64;  // of a block, at most
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Problem {
  int64_t b, t, h, d, s, g, e;
  float scale, hidden;  // hidden: the score of a key that a mask hides
  bool causal;
  const uint8_t* mask = nullptr;  // broadcast to (b, h, t, s) by strides of 0
  const float* bias = nullptr;
  int64_t mask_at[4], bias_at[4];

  int64_t query_blocks() const { return divide_up(t, kQueries); }
  int64_t key_blocks() const { return divide_up(s, kDepth); }
  // Blocks of keys are of even size, whole panels but for the last.
  Range keys(int64_t block) const {
    Range r = range_of(divide_up(s, kColumns), key_blocks(), block);
    return {r.begin * kColumns, std::min(s, r.end * kColumns)};
  }
  // Whether no query of [first, last] sees any key from `key` on. Where a mask may hide everything, all keys count.
  bool unseen(int64_t last, int64_t key) const { return causal && !mask && key > last; }
};

void strides_of(const ffi::Span<const int64_t>& dims, int64_t (&at)[4]) {
  int64_t step = 1;
  for (int i = 3; i >= 0; --i) {
    at[i] = dims[i] == 1 ? 0 : step;
    step *= dims[i];
  }
}

// A block of scores gets its bias and its masks; columns after the last key up to a whole vector become -infinity.
void finish_scores(const Problem& p, int64_t b, int64_t h, int64_t query, int64_t rows, Range keys, float* scores) {
  int64_t n = keys.end - keys.begin, wide = divide_up(n, kLanes) * kLanes;
  for (int64_t r = 0; r < rows; ++r, scores += kStride) {
    if (p.bias) {
      const float* add = p.bias + b * p.bias_at[0] + h * p.bias_at[1] + (query + r) * p.bias_at[2];
      if (p.bias_at[3]) {
        add += keys.begin;
        for (int64_t i = 0; i < n; ++i) scores[i] += add[i];
      } else {
        for (int64_t i = 0; i < n; ++i) scores[i] += *add;
      }
    }
    if (p.mask) {
      const uint8_t* seen = p.mask + b * p.mask_at[0] + h * p.mask_at[1] + (query + r) * p.mask_at[2];
      if (p.mask_at[3]) {
        seen += keys.begin;
        for (int64_t i = 0; i < n; ++i) scores[i] = seen[i] ? scores[i] : p.hidden;
      } else if (!*seen) {
        std::fill(scores, scores + n, p.hidden);
      }
    }
    if (p.causal) {
      int64_t from = std::max<int64_t>(0, query + r + 1 - keys.begin);
      if (from < n) std::fill(scores + from, scores + n, p.hidden);
    }
    for (int64_t i = n; i < wide; ++i) scores[i] = -kInfinity;
  }
}

// Whether a key is hidden, as `finish_scores` sees it.
void hide_gradients(const Problem& p, int64_t b, int64_t h, int64_t query, int64_t rows, Range keys, float* slopes) {
  int64_t n = keys.end - keys.begin;
  for (int64_t r = 0; r < rows; ++r, slopes += kStride) {
    if (p.mask) {
      const uint8_t* seen = p.mask + b * p.mask_at[0] + h * p.mask_at[1] + (query + r) * p.mask_at[2];
      if (p.mask_at[3]) {
        seen += keys.begin;
        for (int64_t i = 0; i < n; ++i) slopes[i] = seen[i] ? slopes[i] : 0.0f;
      } else if (!*seen) {
        std::fill(slopes, slopes + n, 0.0f);
      }
    }
    if (p.causal) {
      int64_t from = std::max<int64_t>(0, query + r + 1 - keys.begin);
      if (from < n) std::fill(slopes + from, slopes + n, 0.0f);
    }
  }
}

// Weights instead of scores; the row's sum, and how much less what came before counts now.
inline void soften(float* row, int64_t n, float& most, float& sum, float& less) {
  Vec top = load(row);
  for (int64_t i = kLanes; i < n; i += kLanes) {
    Vec x = load(row + i);
    top = x > top ? x : top;
  }
  float next = largest_of(top);
  next = next > most ? next : most;
  float base = next == -kInfinity ? 0.0f : next;
  Vec total{};
  for (int64_t i = 0; i < n; i += kLanes) {
    Vec x = exponential(load(row + i) - base);
    store(row + i, x);
    total += x;
  }
  less = most == next ? 1.0f : exponential(Vec{} + (most - base))[0];
  sum = sum * less + sum_of(total);
  most = next;
}

void forward(ffi::ThreadPool& pool, const Problem& p, const float* q, const float* k, const float* v, float* out,
             float* saved) {
  const int64_t group = p.h / p.g, blocks = p.query_blocks(), heads = p.b * p.h;
  const int64_t splits = heads >= 2 * thread_count(pool) ? 1 : std::min(blocks, 2 * thread_count(pool));
  const int64_t wide_e = divide_up(p.e, kColumns) * kColumns, wide_s = divide_up(p.s, kColumns) * kColumns;
  parallel_for(pool, heads * splits, [&](int64_t part) {
    int64_t head = part / splits, b = head / p.h, h = head % p.h, g = h / group;
    Range mine = range_of(blocks, splits, part % splits);
    Workspace space((wide_s * p.d + p.s * wide_e + 2 * kQueries * kStride + kQueries * wide_e) * sizeof(float));
    float *keys_packed = space.floats(), *values = keys_packed + wide_s * p.d, *queries = values + p.s * wide_e;
    float *scores = queries + kQueries * kStride, *made = scores + kQueries * kStride;
    const float *kh = k + (b * p.s * p.g + g) * p.d, *vh = v + (b * p.s * p.g + g) * p.e;
    pack_panels_transposed(kh, p.g * p.d, p.d, p.s, keys_packed, p.d * kColumns);
    for (int64_t j = 0; j < p.key_blocks(); ++j) {
      Range keys = p.keys(j);
      int64_t n = keys.end - keys.begin;
      pack_panels(vh + keys.begin * p.g * p.e, p.g * p.e, n, p.e, values + keys.begin * wide_e, n * kColumns);
    }
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      Range block = range_of(p.t, blocks, i);
      int64_t rows = block.end - block.begin;
      float most[kQueries], sum[kQueries], less[kQueries];
      std::fill(most, most + rows, -kInfinity), std::fill(sum, sum + rows, 0.0f);
      pack_rows(q + ((b * p.t + block.begin) * p.h + h) * p.d, p.h * p.d, rows, p.d, queries, p.scale);
      for (int64_t j = 0; j < p.key_blocks(); ++j) {
        Range keys = p.keys(j);
        if (p.unseen(block.end - 1, keys.begin)) break;
        int64_t n = keys.end - keys.begin;
        product<kStride, 1>(rows, divide_up(n, kColumns) * kColumns, p.d, queries, 0, keys_packed + keys.begin * p.d,
                            scores, kStride, {});
        finish_scores(p, b, h, block.begin, rows, keys, scores);
        for (int64_t r = 0; r < rows; ++r) {
          soften(scores + r * kStride, n, most[r], sum[r], less[r]);
          if (j > 0 && less[r] != 1.0f)
            for (int64_t c = 0; c < wide_e; ++c) made[r * wide_e + c] *= less[r];
        }
        Finish f;
        f.accumulate = j > 0;
        product<kStride, 1>(rows, wide_e, n, scores, 0, values + keys.begin * wide_e, made, wide_e, f);
      }
      for (int64_t r = 0; r < rows; ++r) {
        float share = 1.0f / sum[r];
        float* to = out + ((b * p.t + block.begin + r) * p.h + h) * p.e;
        for (int64_t c = 0; c < p.e; ++c) to[c] = made[r * wide_e + c] * share;
        float* keep = saved + (head * p.t + block.begin + r) * 2;
        keep[0] = most[r], keep[1] = share;
      }
    }
  });
}

void backward(ffi::ThreadPool& pool, const Problem& p, const float* q, const float* k, const float* v, const float* out,
              const float* saved, const float* d_out, float* dq, float* dk, float* dv) {
  const int64_t group = p.h / p.g, blocks = p.query_blocks();
  const int64_t wide_d = divide_up(p.d, kColumns) * kColumns, wide_e = divide_up(p.e, kColumns) * kColumns;
  const int64_t wide_s = divide_up(p.s, kColumns) * kColumns;
  parallel_for(pool, p.b * p.g, [&](int64_t part) {
    int64_t b = part / p.g, g = part % p.g;
    Workspace space(
        (wide_s * (p.d + p.e) + p.s * wide_d + kQueries * (4 * kStride + wide_d + wide_e)) * sizeof(float));
    float *keys_across = space.floats(), *values_across = keys_across + wide_s * p.d;
    float *keys_packed = values_across + wide_s * p.e, *queries = keys_packed + p.s * wide_d;
    float *slopes_out = queries + kQueries * kStride, *weights = slopes_out + kQueries * kStride;
    float *slopes = weights + kQueries * kStride, *query_panels = slopes + kQueries * kStride;
    float* out_panels = query_panels + kQueries * wide_d;
    int64_t kv_row = b * p.s * p.g + g;
    pack_panels_transposed(k + kv_row * p.d, p.g * p.d, p.d, p.s, keys_across, p.d * kColumns);
    pack_panels_transposed(v + kv_row * p.e, p.g * p.e, p.e, p.s, values_across, p.e * kColumns);
    for (int64_t j = 0; j < p.key_blocks(); ++j) {
      Range keys = p.keys(j);
      int64_t n = keys.end - keys.begin;
      pack_panels(k + (kv_row + keys.begin * p.g) * p.d, p.g * p.d, n, p.d, keys_packed + keys.begin * wide_d,
                  n * kColumns);
    }
    for (int64_t i = 0; i < p.s; ++i) {
      std::fill_n(dk + (kv_row + i * p.g) * p.d, p.d, 0.0f);
      std::fill_n(dv + (kv_row + i * p.g) * p.e, p.e, 0.0f);
    }
    Finish add;
    add.accumulate = true;
    for (int64_t h = g * group; h < (g + 1) * group; ++h) {
      for (int64_t i = 0; i < blocks; ++i) {
        Range block = range_of(p.t, blocks, i);
        int64_t rows = block.end - block.begin, row = (b * p.t + block.begin) * p.h + h;
        const float *qh = q + row * p.d, *oh = out + row * p.e, *gh = d_out + row * p.e;
        const float* kept = saved + ((b * p.h + h) * p.t + block.begin) * 2;
        pack_rows(qh, p.h * p.d, rows, p.d, queries, p.scale);
        pack_rows(gh, p.h * p.e, rows, p.e, slopes_out);
        pack_panels(qh, p.h * p.d, rows, p.d, query_panels, rows * kColumns);
        pack_panels(gh, p.h * p.e, rows, p.e, out_panels, rows * kColumns);
        float level[kQueries];
        for (int64_t r = 0; r < rows; ++r) {
          float total[kLanes] = {};
          const float *x = oh + r * p.h * p.e, *y = gh + r * p.h * p.e;
          int64_t c = 0;
          for (; c + kLanes <= p.e; c += kLanes)
            for (int l = 0; l < kLanes; ++l) total[l] += x[c + l] * y[c + l];
          for (; c < p.e; ++c) total[0] += x[c] * y[c];
          level[r] = 0;
          for (float t : total) level[r] += t;
        }
        for (int64_t j = 0; j < p.key_blocks(); ++j) {
          Range keys = p.keys(j);
          if (p.unseen(block.end - 1, keys.begin)) break;
          int64_t n = keys.end - keys.begin, wide = divide_up(n, kColumns) * kColumns;
          product<kStride, 1>(rows, wide, p.d, queries, 0, keys_across + keys.begin * p.d, weights, kStride, {});
          finish_scores(p, b, h, block.begin, rows, keys, weights);
          product<kStride, 1>(rows, wide, p.e, slopes_out, 0, values_across + keys.begin * p.e, slopes, kStride, {});
          for (int64_t r = 0; r < rows; ++r) {
            float most = kept[2 * r], share = kept[2 * r + 1];
            float *w = weights + r * kStride, *ds = slopes + r * kStride;
            for (int64_t c = 0; c < n; c += kLanes) {
              Vec weight = exponential(load(w + c) - most) * share;
              store(w + c, weight);
              store(ds + c, weight * (load(ds + c) - level[r]) * p.scale);
            }
          }
          if (p.mask || p.causal) hide_gradients(p, b, h, block.begin, rows, keys, slopes);
          int64_t first = kv_row + keys.begin * p.g;
          product<1, kStride>(n, p.e, rows, weights, 0, out_panels, dv + first * p.e, p.g * p.e, add);
          product<1, kStride>(n, p.d, rows, slopes, 0, query_panels, dk + first * p.d, p.g * p.d, add);
          Finish f;
          f.accumulate = j > 0;
          product<kStride, 1>(rows, p.d, n, slopes, 0, keys_packed + keys.begin * wide_d, dq + row * p.d, p.h * p.d, f);
        }
      }
    }
  });
}

// The first inputs are q, k, v; then mask and bias where `flags` has 1 and 2 (4: causal). Advances `next` past them.
ffi::ErrorOr<Problem> problem_of(const ffi::RemainingArgs& inputs, float scale, float hidden, int64_t flags, size_t& next) {
  auto q = inputs.get<Floats>(0)->dimensions(), v = inputs.get<Floats>(2)->dimensions();
  Problem p{q[0], q[1], q[2], q[3], v[1], v[2], v[3], scale, hidden, bool(flags & 4)};
  if (p.d > kDepth || p.e > kDepth || p.g < 1 || p.h % p.g)
    return ffi::Unexpected(ffi::Error::InvalidArgument("attention: heads of at most 256 features, in whole groups"));
  next = 3;
  if (flags & 1) {
    auto mask = *inputs.get<ffi::Buffer<ffi::PRED>>(next++);
    p.mask = reinterpret_cast<const uint8_t*>(mask.typed_data());
    strides_of(mask.dimensions(), p.mask_at);
  }
  if (flags & 2) {
    auto bias = *inputs.get<Floats>(next++);
    p.bias = bias.typed_data();
    strides_of(bias.dimensions(), p.bias_at);
  }
  return p;
}

ffi::Error Attention(ffi::ThreadPool pool, float scale, float hidden, int64_t flags, ffi::RemainingArgs inputs,
                     ffi::Result<Floats> out, ffi::Result<Floats> saved) {
  size_t next;
  auto p = problem_of(inputs, scale, hidden, flags, next);
  if (p.has_error()) return p.error();
  auto at = [&](size_t i) { return inputs.get<Floats>(i)->typed_data(); };
  forward(pool, *p, at(0), at(1), at(2), out->typed_data(), saved->typed_data());
  return ffi::Error::Success();
}

ffi::Error AttentionGradient(ffi::ThreadPool pool, float scale, float hidden, int64_t flags, ffi::RemainingArgs inputs,
                             ffi::Result<Floats> dq, ffi::Result<Floats> dk, ffi::Result<Floats> dv) {
  size_t next;
  auto p = problem_of(inputs, scale, hidden, flags, next);
  if (p.has_error()) return p.error();
  auto at = [&](size_t i) { return inputs.get<Floats>(i)->typed_data(); };
  backward(pool, *p, at(0), at(1), at(2), at(next), at(next + 1), at(next + 2), dq->typed_data(), dk->typed_data(),
           dv->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(AttentionHandler, Attention,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<float>("scale")
                           .Attr<float>("hidden")
                           .Attr<int64_t>("flags")
                           .RemainingArgs()
                           .Ret<Floats>()
                           .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER(AttentionGradientHandler, AttentionGradient,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<float>("scale")
                           .Attr<float>("hidden")
                           .Attr<int64_t>("flags")
                           .RemainingArgs()
                           .Ret<Floats>()
                           .Ret<Floats>()
                           .Ret<Floats>());

KERASOFT_TARGET("attention", AttentionHandler);
KERASOFT_TARGET("attention_gradient", AttentionGradientHandler);

}  // namespace kerasoft
