// C = A B for float32 matrices, either of them also transposed, with a bias, an activation or a gate on the way out.
//
// Three ways to cut the work; in none does the order of a sum depend on who works. With many rows, B is packed once for all
// threads, and parts take rows of C. With few rows, parts take a panel of B each, pack it and use it while it is in the
// cache: small parts, for the second thread comes tens of microseconds late. Where the inner size is the large one
// (gradients of weights), each part takes columns or rows of C and packs its own blocks; the sums of B's columns (a bias's
// gradient) come along.
#include <algorithm>
#include <atomic>

#include "gemm.h"
#include "parallel.h"
#include "product.h"
#include "registry.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;

struct Sizes {
  int64_t m, n, k;
};

// Rows of A as they are, where their distance is one of these: they do not fall into the same few sets of the first cache.
constexpr int kDirect[] = {256, 512};

// `rows` rows of A by the panels of one block of B.
void multiply_block(const float* a, int64_t lda, int64_t rows, int64_t n, int64_t depth, const float* panels, float* c,
                    int64_t ldc, const Finish& f, float* space) {
  if (lda == kDirect[0]) return product<kDirect[0], 1>(rows, n, depth, a, 0, panels, c, ldc, f);
  if (lda == kDirect[1]) return product<kDirect[1], 1>(rows, n, depth, a, 0, panels, c, ldc, f);
  pack_rows(a, lda, rows, depth, space);
  product<kStride, 1>(rows, n, depth, space, 0, panels, c, ldc, f);
}

constexpr int64_t kFewRows = 512;

// Rows `from` .. `from + depth` of panels of B.
void pack_block(const float* b, Sizes s, bool transposed, int64_t from, int64_t depth, int64_t column, int64_t count,
                float* to) {
  if (transposed) {
    pack_panels_transposed(b + column * s.k + from, s.k, depth, count, to, depth * kColumns);
  } else {
    pack_panels(b + from * s.n + column, s.n, depth, count, to, depth * kColumns);
  }
}

// Runs `first` parts of `before` and, when all of them are done, `then` parts of `after`. Parts are claimed in order, so who
// waits waits for a thread that is at work.
template <typename Before, typename After>
void one_after_other(ffi::ThreadPool& pool, int64_t first, const Before& before, int64_t then, const After& after) {
  std::atomic<int64_t> done{0};
  parallel_for(pool, first + then, [&](int64_t part) {
    if (part < first) {
      before(part);
      done.fetch_add(1, std::memory_order_release);
      return;
    }
    while (done.load(std::memory_order_acquire) < first) __builtin_ia32_pause();
    after(part - first);
  });
}

// As by_rows, for few rows.
void by_panels(ffi::ThreadPool& pool, Sizes s, const float* a, const float* b, bool transposed, float* c, Finish finish) {
  const int64_t panels = divide_up(s.n, kColumns), blocks = divide_up(s.k, kDepth);
  const bool direct = s.k == kDirect[0] || s.k == kDirect[1];
  Workspace rows(direct ? 0 : size_t(blocks) * s.m * kStride * sizeof(float));
  const auto pack = [&](int64_t q) {
    pack_rows(a + q * kDepth, s.k, s.m, std::min<int64_t>(kDepth, s.k - q * kDepth), rows.floats() + q * s.m * kStride);
  };
  one_after_other(pool, direct ? 0 : blocks, pack, panels, [&](int64_t panel) {
    const int64_t column = panel * kColumns, count = std::min<int64_t>(kColumns, s.n - column);
    Workspace packed(size_t(kDepth) * kColumns * sizeof(float));
    for (int64_t q = 0; q < blocks; ++q) {
      const int64_t from = q * kDepth, depth = std::min<int64_t>(kDepth, s.k - from);
      pack_block(b, s, transposed, from, depth, column, count, packed.floats());
      Finish f;
      f.accumulate = q > 0;
      if (q + 1 == blocks) {
        f.relu = finish.relu;
        if (finish.bias) f.bias = finish.bias + column;
        if (finish.gate) f.gate = finish.gate + column;
      }
      if (s.k == kDirect[0]) {
        product<kDirect[0], 1>(s.m, count, depth, a + from, 0, packed.floats(), c + column, s.n, f);
      } else if (s.k == kDirect[1]) {
        product<kDirect[1], 1>(s.m, count, depth, a + from, 0, packed.floats(), c + column, s.n, f);
      } else {
        product<kStride, 1>(s.m, count, depth, rows.floats() + q * s.m * kStride, 0, packed.floats(), c + column, s.n, f);
      }
    }
  });
}

// A (m, k) by B (k, n) or, transposed, (n, k).
void by_rows(ffi::ThreadPool& pool, Sizes s, const float* a, const float* b, bool transposed, float* c, Finish finish) {
  const int64_t panels = divide_up(s.n, kColumns), blocks = divide_up(s.k, kDepth);
  Workspace packed(size_t(panels) * kColumns * s.k * sizeof(float));
  // Block q of B's rows begins at q * kDepth * panels * kColumns; its panels are (its depth) * kColumns long.
  const int64_t group = 4, groups = divide_up(panels, group), to_pack = blocks * groups;
  const auto pack = [&](int64_t part) {
    int64_t q = part / groups, first = part % groups * group, from = q * kDepth;
    int64_t depth = std::min<int64_t>(kDepth, s.k - from), column = first * kColumns;
    int64_t count = std::min(s.n - column, group * kColumns);
    pack_block(b, s, transposed, from, depth, column, count,
               packed.floats() + from * panels * kColumns + first * depth * kColumns);
  };
  const int64_t chunks = divide_up(s.m, kRows), threads = thread_count(pool);
  const int64_t parts = std::min(divide_up(divide_up(chunks, 8), threads) * threads, chunks);
  const auto multiply = [&](int64_t part) {
    Range range = range_of(chunks, parts, part);
    int64_t first = range.begin * kRows, rows = std::min(s.m, range.end * kRows) - first;
    Workspace block(size_t(rows) * kStride * sizeof(float));
    for (int64_t q = 0; q < blocks; ++q) {
      int64_t from = q * kDepth;
      Finish f;
      f.accumulate = q > 0;
      if (q + 1 == blocks) f.bias = finish.bias, f.relu = finish.relu, f.gate = finish.gate;
      if (f.gate) f.gate += first * s.n;
      multiply_block(a + first * s.k + from, s.k, rows, s.n, std::min<int64_t>(kDepth, s.k - from),
                     packed.floats() + from * panels * kColumns, c + first * s.n, s.n, f, block.floats());
    }
  };
  one_after_other(pool, to_pack, pack, parts, multiply);
}

// A given as its transpose (k, m), by B (k, n); sums (n) of B's columns unless null.
void by_depth(ffi::ThreadPool& pool, Sizes s, const float* a, const float* b, float* c, float* sums) {
  constexpr int64_t depth_step = 384, rows_step = 8 * kRows;
  const bool by_columns = s.n >= s.m;
  const int64_t unit = by_columns ? kColumns : kRows, units = divide_up(by_columns ? s.n : s.m, unit);
  const int64_t parts = std::min(units, thread_count(pool));
  if (sums) std::fill(sums, sums + s.n, 0.0f);
  parallel_for(pool, parts, [&](int64_t part) {
    Range range = range_of(units, parts, part);
    int64_t row = by_columns ? 0 : range.begin * unit, column = by_columns ? range.begin * unit : 0;
    int64_t m = by_columns ? s.m : std::min(s.m, range.end * unit) - row;
    int64_t n = by_columns ? std::min(s.n, range.end * unit) - column : s.n;
    int64_t wide = divide_up(n, kColumns) * kColumns;
    Workspace space(size_t(wide + divide_up(rows_step, kRows) * kRows + kRows) * depth_step * sizeof(float));
    float *panels = space.floats(), *block = panels + wide * depth_step;
    float* add = sums && (by_columns || part == 0) ? sums + column : nullptr;
    for (int64_t from = 0; from < s.k; from += depth_step) {
      int64_t depth = std::min(depth_step, s.k - from);
      pack_panels(b + from * s.n + column, s.n, depth, n, panels, depth * kColumns, add);
      Finish f;
      f.accumulate = from > 0;
      for (int64_t i = 0; i < m; i += rows_step) {
        int64_t rows = std::min(rows_step, m - i);
        pack_chunks(a + from * s.m + row + i, s.m, rows, depth, block);
        product<1, kRows>(rows, n, depth, block, depth * kRows, panels, c + (row + i) * s.n + column, s.n, f);
      }
    }
  });
}

// Inputs: A (m, k), B (k, n) or (n, k)[, bias (n)][, gate (m, n)]; flags: 1 B is transposed, 2 bias, 4 relu, 8 gate.
ffi::Error Gemm(ffi::ThreadPool pool, int64_t m, int64_t n, int64_t k, int64_t flags, ffi::RemainingArgs inputs,
                ffi::Result<Floats> c) {
  auto at = [&](size_t i) { return inputs.get<Floats>(i)->typed_data(); };
  size_t next = 2;
  Finish finish;
  if (flags & 2) finish.bias = at(next++);
  finish.relu = flags & 4;
  if (flags & 8) finish.gate = at(next++);
  const auto run = m <= kFewRows ? by_panels : by_rows;
  run(pool, {m, n, k}, at(0), at(1), flags & 1, c->typed_data(), finish);
  return ffi::Error::Success();
}

// Inputs: A' (k, m), B (k, n); results: A B (m, n)[, the sums of B's columns (n)].
ffi::Error GemmTransposed(ffi::ThreadPool pool, int64_t m, int64_t n, int64_t k, Floats a, Floats b,
                          ffi::RemainingRets results) {
  float* sums = results.size() > 1 ? (*results.get<Floats>(1))->typed_data() : nullptr;
  by_depth(pool, {m, n, k}, a.typed_data(), b.typed_data(), (*results.get<Floats>(0))->typed_data(), sums);
  return ffi::Error::Success();
}

}  // namespace

void multiply(ffi::ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* a, const float* b, bool transposed,
              float* c) {
  by_rows(pool, {m, n, k}, a, b, transposed, c, Finish());
}

void multiply_transposed(ffi::ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c,
                         float* sums) {
  by_depth(pool, {m, n, k}, a, b, c, sums);
}

XLA_FFI_DEFINE_HANDLER(GemmHandler, Gemm,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<int64_t>("m")
                           .Attr<int64_t>("n")
                           .Attr<int64_t>("k")
                           .Attr<int64_t>("flags")
                           .RemainingArgs()
                           .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER(GemmTransposedHandler, GemmTransposed,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<int64_t>("m")
                           .Attr<int64_t>("n")
                           .Attr<int64_t>("k")
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .RemainingRets());

KERASOFT_TARGET("gemm", GemmHandler);
KERASOFT_TARGET("gemm_transposed", GemmTransposedHandler);

}  // namespace kerasoft
