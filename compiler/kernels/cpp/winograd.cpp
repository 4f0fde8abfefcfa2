// Convolutions of 3 x 3 and 5 x 5 taps by Winograd's transforms (winograd.h), and their inputs' gradients, which are
// convolutions with the kernel turned about and its channels exchanged.
//
// 1. Kernels: panels of kColumns filters, [product][c][kColumns]. 2. Inputs: [product][tile][c]. 3. For each of the 36
// products a matrix product, tiles x c by c x filters (product.h). 4. Outputs, with bias, sum and relu.
//
// Two orders. By tiles: kernels first, then each part takes a block of tiles through 2 to 4, all of it in the second cache.
// By panels, where kernels are large and tiles few: inputs first, then each part takes a panel of filters through 1, 3 and 4,
// so that transformed kernels never go to memory. What is summed, and in which order, is the same in both.
//
// A tile whose result is not finite is computed again by plain sums: transforms make NaN of an infinity and spread it.
#include <algorithm>
#include <optional>

#include "parallel.h"
#include "product.h"
#include "registry.h"
#include "winograd.h"
#include "workspace.h"

namespace kerasoft {
namespace winograd {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Spec = ffi::Span<const int64_t>;

constexpr int64_t kCache = 640 << 10;  // bytes of a block's transformed inputs and products, in the second cache
enum Post : int64_t { kBias = 1, kRelu = 2, kSum = 4 };
enum Order : int64_t { kBest = 0, kByTiles = 1, kByPanels = 2 };

// m (rows, kColumns) (+)= v (rows, depth) by a panel (depth, kColumns).
void multiply(int64_t stride, int64_t rows, int64_t depth, const float* v, const float* panel, float* m, const Finish& f) {
  switch (stride) {
    case 16: return product<16, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 32: return product<32, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 48: return product<48, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 80: return product<80, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 112: return product<112, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 144: return product<144, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    case 208: return product<208, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
    default: return product<272, 1>(rows, kColumns, depth, v, 0, panel, m, kColumns, f);
  }
}

template <int R>
class Convolution {
 public:
  static constexpr int M = POINTS + 1 - R;

  Convolution(const Conv& s, const float* x, const float* kernel, bool turned, const float* bias, bool relu, bool add, float* y)
      : s_(s), depth_(s.c), x_(x), kernel_(kernel), turned_(turned), bias_(bias), relu_(relu), add_(add), y_(y) {}

  void run(ffi::ThreadPool& pool, int64_t order) const {
    const int64_t tiles = s_.tiles(M), panels = divide_up(s_.f, kColumns);
    if (tiles == 0) return;
    if (order == kBest) order = s_.c * s_.f >= 3 * 65536 / 2 && tiles <= 256 ? kByPanels : kByTiles;
    order == kByTiles ? by_tiles(pool, tiles, panels) : by_panels(pool, tiles, panels);
  }

 private:
  // Distances: of products, padded so that they do not share sets of the caches.
  int64_t inputs_distance(int64_t tiles) const { return tiles * depth_.stride + LANES; }
  int64_t inputs_floats(int64_t tiles) const { return depth_.parts * PRODUCTS * inputs_distance(tiles); }
  int64_t kernel_distance() const { return s_.c * kColumns + LANES; }
  static int64_t outputs_distance(int64_t tiles) { return tiles * kColumns + LANES; }

  int64_t block() const {  // tiles
    const int64_t each = PRODUCTS * int64_t(sizeof(float)) * (depth_.parts * depth_.stride + kColumns);
    return std::max<int64_t>(kRows, kCache / each / kRows * kRows);
  }

  void by_tiles(ffi::ThreadPool& pool, int64_t tiles, int64_t panels) const {
    Workspace kernels(size_t(panels) * PRODUCTS * kernel_distance() * sizeof(float));
    const int64_t each = PRODUCTS * kernel_distance();
    parallel_for(pool, panels, [&](int64_t panel) { spread_panel(panel, kernels.floats() + panel * each); });
    const int64_t threads = thread_count(pool);
    int64_t parts = divide_up(divide_up(tiles, block()), threads) * threads;
    parts = std::min(parts, divide_up(tiles, kRows));
    parallel_for(pool, parts, [&](int64_t part) {
      const Range range = range_of(tiles, parts, part);
      const int64_t rows = range.end - range.begin, distance = inputs_distance(rows);
      Workspace space(size_t(inputs_floats(rows) + PRODUCTS * outputs_distance(rows)) * sizeof(float));
      float *v = space.floats(), *m = v + inputs_floats(rows);
      turn_tiles(range.begin, range.end, v, distance);
      for (int64_t panel = 0; panel < panels; ++panel)
        finish_panel(range, panel, v, distance, kernels.floats() + panel * each, m);
    });
  }

  void by_panels(ffi::ThreadPool& pool, int64_t tiles, int64_t panels) const {
    Workspace inputs(size_t(inputs_floats(tiles)) * sizeof(float));
    float* v = inputs.floats();
    const int64_t distance = inputs_distance(tiles), pieces = std::min(tiles, 4 * thread_count(pool));
    parallel_for(pool, pieces, [&](int64_t piece) {
      const Range range = range_of(tiles, pieces, piece);
      turn_tiles(range.begin, range.end, v + range.begin * depth_.stride, distance);
    });
    const int64_t most = std::max<int64_t>(kRows, kCache / 2 / (PRODUCTS * kColumns * 4) / kRows * kRows);
    const int64_t blocks = divide_up(tiles, most);
    parallel_for(pool, panels, [&](int64_t panel) {
      Workspace space(size_t(PRODUCTS) * (kernel_distance() + outputs_distance(most)) * sizeof(float));
      float *u = space.floats(), *m = u + PRODUCTS * kernel_distance();
      spread_panel(panel, u);
      for (int64_t b = 0; b < blocks; ++b) {
        const Range range = range_of(tiles, blocks, b);
        finish_panel(range, panel, v + range.begin * depth_.stride, distance, u, m);
      }
    });
  }

  // The taps of a panel of filters: [tap][c][kColumns].
  void taps_of(int64_t panel, float* to) const {
    const int64_t first = panel * kColumns, columns = std::min<int64_t>(kColumns, s_.f - first);
    for (int tap = 0; tap < R * R; ++tap, to += s_.c * kColumns) {
      if (turned_) {
        const float* from = kernel_ + ((R * R - 1 - tap) * s_.f + first) * s_.c;
        pack_panel_transposed(from, s_.c, columns, s_.c, to);
      } else {
        pack_panels(kernel_ + tap * s_.c * s_.f + first, s_.f, s_.c, columns, to, 0);
      }
    }
  }

  void spread_panel(int64_t panel, float* u) const {
    Workspace space(R * R * s_.c * kColumns * sizeof(float));
    const float* taps = space.floats();
    taps_of(panel, space.floats());
    const int64_t distance = kernel_distance(), floats = s_.c * kColumns;
    for (int64_t at = 0; at < floats; at += LANES) {
      vec g[R][R], made[6][6];
#pragma GCC unroll 25
      for (int tap = 0; tap < R * R; ++tap) g[tap / R][tap % R] = load(taps + tap * floats + at);
      spread<R>(g, made);
#pragma GCC unroll 36
      for (int t = 0; t < PRODUCTS; ++t) store(u + t * distance + at, made[t / 6][t % 6]);
    }
  }

  // Transformed inputs of tiles; the first of them stands at `v`.
  void turn_tiles(int64_t begin, int64_t end, float* v, int64_t distance) const {
    for (int64_t tile = begin; tile < end; ++tile, v += depth_.stride) {
      const Place place = place_of(s_, M, tile);
      for (int64_t c = 0; c < s_.c; c += LANES) {
        vec made[6][6];
        turn_inputs(s_, x_, place, c, made);
        float* to = v + c / depth_.each * PRODUCTS * distance + c % depth_.each;
#pragma GCC unroll 36
        for (int t = 0; t < PRODUCTS; ++t) store(to + t * distance, made[t / 6][t % 6]);
      }
    }
  }

  // The products of a block of tiles with a panel of filters, and what becomes of them.
  void finish_panel(Range range, int64_t panel, const float* v, int64_t v_distance, const float* u, float* m) const {
    const int64_t rows = range.end - range.begin, distance = outputs_distance(rows);
    for (int t = 0; t < PRODUCTS; ++t) {
      for (int64_t q = 0; q < depth_.parts; ++q) {
        Finish f;
        f.accumulate = q > 0;
        multiply(depth_.stride, rows, depth_.of(q), v + (q * PRODUCTS + t) * v_distance,
                 u + t * kernel_distance() + q * depth_.each * kColumns, m + t * distance, f);
      }
    }
    std::optional<Workspace> taps;
    for (int64_t tile = range.begin; tile < range.end; ++tile, m += kColumns) {
      const Place place = place_of(s_, M, tile);
      for (int64_t j = panel * kColumns, v = 0; v < kColumns && j < s_.f; j += LANES, v += LANES) {
        vec in[6][6], out[M][M];
#pragma GCC unroll 36
        for (int t = 0; t < PRODUCTS; ++t) in[t / 6][t % 6] = load(m + t * distance + v);
        gather<M>(in, out);
        ivec bad{};
        for (auto& row : out)
          for (vec one : row) bad |= not_finite(one);
        if (__builtin_expect(any(bad), 0)) {
          if (!taps) {
            taps.emplace(R * R * s_.c * kColumns * sizeof(float));
            taps_of(panel, taps->floats());
          }
          sum_plainly(place, j, taps->floats() + v, out);
        }
        put(place, j, out);
      }
    }
  }

  void put(Place at, int64_t j, vec (&out)[M][M]) const {
    const int lanes = int(std::min<int64_t>(LANES, s_.f - j));
    const int64_t rows = std::min<int64_t>(M, s_.oh - at.row), columns = std::min<int64_t>(M, s_.ow - at.column);
    const vec bias = bias_ ? load(bias_ + j, lanes) : vec{}, zero{};
    float* to = y_ + ((at.image * s_.oh + at.row) * s_.ow + at.column) * s_.f + j;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        float* one = to + (r * s_.ow + c) * s_.f;
        vec y = out[r][c] + bias;
        if (add_) y += load(one, lanes);
        if (relu_) y = y < zero ? zero : y;  // NaN stays NaN
        store(one, y, lanes);
      }
    }
  }

  // A tile's outputs by plain sums; no further than to NaN, so that a net that has diverged is not much slower.
  void sum_plainly(Place at, int64_t j, const float* taps, vec (&out)[M][M]) const {
    const int lanes = int(std::min<int64_t>(LANES, s_.f - j));
    const int64_t columns = std::min<int64_t>(M, s_.ow - at.column);
    for (int r = 0; r < M; ++r) {
      for (int c = 0; c < M; ++c) out[r][c] = vec{};
      for (int tap = 0; tap < R * R; ++tap) {
        const int64_t row = at.row + r + tap / R - s_.top, left = at.column + tap % R - s_.left;
        if (row < 0 || row >= s_.h) continue;
        const float* x = x_ + ((at.image * s_.h + row) * s_.w + left) * s_.c;
        for (int64_t k = 0; k < s_.c; ++k) {
          const vec g = load(taps + (tap * s_.c + k) * kColumns);
          for (int c = 0; c < M; ++c)
            if (left + c >= 0 && left + c < s_.w) out[r][c] += x[c * s_.c + k] * g;
        }
        if (all_nan(out[r], columns, lanes)) break;
      }
    }
  }

  const Conv s_;
  const Depth depth_;
  const float *x_, *kernel_;
  const bool turned_;
  const float* bias_;
  const bool relu_, add_;
  float* y_;
};

template <typename... Args>
void run(ffi::ThreadPool& pool, int64_t taps, int64_t order, Args... args) {
  if (taps == 3) {
    Convolution<3>(args...).run(pool, order);
  } else {
    Convolution<5>(args...).run(pool, order);
  }
}

// Inputs: x, kernel[, bias][, what is added, in y's place].
ffi::Error Forward(ffi::ThreadPool pool, Spec spec, int64_t post, int64_t order, ffi::RemainingArgs inputs,
                   ffi::Result<Floats> y) {
  auto at = [&](size_t i) { return inputs.get<Floats>(i)->typed_data(); };
  const float* bias = post & kBias ? at(2) : nullptr;
  if (post & kSum) {
    const float* add = at(inputs.size() - 1);
    if (add != y->typed_data()) std::copy_n(add, y->element_count(), y->typed_data());
  }
  run(pool, spec[9], order, conv_of(spec), at(0), at(1), false, bias, bool(post & kRelu), bool(post & kSum),
      y->typed_data());
  return ffi::Error::Success();
}

ffi::Error GradInput(ffi::ThreadPool pool, Spec spec, int64_t order, Floats dy, Floats kernel, ffi::Result<Floats> dx) {
  const Conv s = conv_of(spec);
  const int64_t reach = spec[9] - 1;
  const Conv back{s.n, s.f, s.c, s.oh, s.ow, s.h, s.w, reach - s.top, reach - s.left};
  run(pool, spec[9], order, back, dy.typed_data(), kernel.typed_data(), true, static_cast<const float*>(nullptr), false,
      false, dx->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(ForwardHandler, Forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<Spec>("spec")
                           .Attr<int64_t>("post")
                           .Attr<int64_t>("order")
                           .RemainingArgs()
                           .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER(GradInputHandler, GradInput,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<Spec>("spec")
                           .Attr<int64_t>("order")
                           .Arg<Floats>()
                           .Arg<Floats>()
                           .Ret<Floats>());

KERASOFT_TARGET("winograd", ForwardHandler);
KERASOFT_TARGET("winograd_grad_input", GradInputHandler);

}  // namespace winograd
}  // namespace kerasoft
