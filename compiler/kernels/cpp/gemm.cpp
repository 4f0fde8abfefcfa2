// C = A B for float32 matrices, either of them also transposed, with a bias, an activation or a gate on the way out.
//
// Four ways to cut the work; in none does the order of a sum depend on who works. With many rows, B is packed once for all
// threads, and parts take rows of C. With few rows, parts take neighbouring panels of B, pack one after the other and use it
// while it is in the cache: small parts, for the second thread may come late. Gradients of weights: where the batch is small,
// B is packed once and parts take rows of C, packing A as they first use it; else each part takes columns or rows of C and
// packs its own blocks. The sums of B's columns (a bias's gradient) come along.
#include <algorithm>
#include <atomic>

#include "gemm.h"
#include "parallel.h"
#include "product.h"
#include "registry.h"
#include "strided.h"
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
constexpr int64_t kPanelDepth = 16384 / kColumns;     // of a panel at most: it is read from the second cache
constexpr int64_t kShortPanels = 96 << 10;            // floats of all panels that by_short_depth keeps in the second cache

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

// As by_rows, for few rows. A part takes neighbouring panels, whose lines it fetches while it uses the one before. Where there
// are few panels, rows are shared out too, and each share packs for itself.
void by_panels(ffi::ThreadPool& pool, Sizes s, const float* a, const float* b, bool transposed, float* c, Finish finish) {
  const int64_t panels = divide_up(s.n, kColumns), blocks = divide_up(s.k, kPanelDepth), enough = 4 * thread_count(pool);
  const int64_t groups = std::min(panels, enough), shares = std::min(divide_up(enough, 2 * panels), divide_up(s.m, 2 * kRows));
  const bool copied = falls_together(s.k);
  const int64_t row_blocks = copied ? divide_up(s.k, kDepth) : 0;
  Workspace rows(size_t(row_blocks) * s.m * kStride * sizeof(float));
  const auto pack = [&](int64_t q) {
    pack_rows(a + q * kDepth, s.k, s.m, std::min<int64_t>(kDepth, s.k - q * kDepth), rows.floats() + q * s.m * kStride);
  };
  const auto work = [&](int64_t part) {
    const Range mine = range_of(panels, groups, part / shares), of_rows = range_of(s.m, shares, part % shares);
    const int64_t first = of_rows.begin, m = of_rows.end - first;
    Workspace space(size_t(kPanelDepth) * kColumns * sizeof(float));
    float* panel = space.floats();
    for (int64_t q = 0; q < (copied ? row_blocks : blocks); ++q) {
      const Range depth = copied ? Range{q * kDepth, std::min<int64_t>(s.k, (q + 1) * kDepth)} : range_of(s.k, blocks, q);
      const int64_t from = depth.begin, k = depth.end - from;
      const int64_t distance = copied ? kStride : s.k;
      const float* left = (copied ? rows.floats() + q * s.m * kStride : a + from) + first * distance;
      for (int64_t p = mine.begin; p < mine.end; ++p) {
        const int64_t column = p * kColumns, count = std::min<int64_t>(kColumns, s.n - column);
        pack_block(b, s, transposed, from, k, column, count, panel);
        Finish f;
        f.accumulate = from > 0;
        if (depth.end == s.k) {
          f.relu = finish.relu;
          if (finish.bias) f.bias = finish.bias + column;
          if (finish.gate) f.gate = finish.gate + first * s.n + column;
        }
        Fetch fetch;
        if (p + 1 < mine.end && count == kColumns && !(transposed && k < s.k)) {
          fetch.next = transposed ? b + (column + kColumns) * s.k : b + from * s.n + column + kColumns;
          fetch.step = transposed ? kColumns : s.n;
        }
        strided_product(m, count, k, left, distance, panel, c + first * s.n + column, s.n, f, fetch);
      }
    }
  };
  one_after_other(pool, row_blocks, pack, groups * shares, work);
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

// As by_depth, for so few rows of A' and B that all panels of B stay in the second cache: they are packed once for all
// threads, and parts take rows of C.
void by_short_depth(ffi::ThreadPool& pool, Sizes s, const float* a, const float* b, float* c, float* sums) {
  const int64_t panels = divide_up(s.n, kColumns), chunks = divide_up(s.m, kRows), distance = s.k * kColumns;
  const int64_t groups = std::min<int64_t>(divide_up(panels, 2), 8), parts = std::min(chunks, 8 * thread_count(pool));
  Workspace packed(size_t(panels) * distance * sizeof(float));
  const auto pack = [&](int64_t group) {
    const Range mine = range_of(panels, groups, group);
    const int64_t column = mine.begin * kColumns, count = std::min(s.n, mine.end * kColumns) - column;
    pack_panels(b + column, s.n, s.k, count, packed.floats() + mine.begin * distance, distance);
    for (int64_t p = mine.begin; sums && p < mine.end; ++p)
      sum_panel(packed.floats() + p * distance, s.k, std::min<int64_t>(kColumns, s.n - p * kColumns), sums + p * kColumns);
  };
  one_after_other(pool, groups, pack, parts, [&](int64_t part) {
    const Range mine = range_of(chunks, parts, part);
    Workspace space(size_t(s.k) * kRows * sizeof(float));
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const Range rows = range_of(s.m, chunks, i);
      chunk_by_panels(int(rows.end - rows.begin), s.n, s.k, a + rows.begin, s.m, packed.floats(), distance, space.floats(),
                      c + rows.begin * s.n, s.n, Finish());
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
  const auto run = k * divide_up(n, kColumns) * kColumns <= kShortPanels ? by_short_depth : by_depth;
  run(pool, {m, n, k}, a.typed_data(), b.typed_data(), (*results.get<Floats>(0))->typed_data(), sums);
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
