// Gradients of 3 x 3 and 5 x 5 kernels by Winograd's transforms (winograd.h).
//
// The gradient is a correlation of the inputs with dy: for each tile of inputs, 6 x 6, R x R outputs with M = 7 - R taps,
// the M x M numbers of dy. So inputs are transformed as in winograd.cpp, dy as kernels are there, [product][tile][filter],
// and a sum over all tiles is a matrix product for each of the 36 products:
//
//   1. Blocks of tiles: transformed inputs [product][tile][c] and dy [product][panel of filters][tile][kColumns].
//   2. For each product: sums (c, f) += inputs' dy. 1 and 2 are repeated for groups of blocks that the last cache holds.
//   3. From 36 sums the R x R gradients; where one is not finite, plain sums.
//
// How tiles are cut into blocks and groups depends on sizes alone, so that results do not depend on threads.
#include <algorithm>

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

constexpr int64_t kBlock = 224;             // tiles summed at once: panels of dy of this height stay in the first cache
constexpr int64_t kGroupBytes = 8 << 20;    // of transformed inputs and dy, in the last cache

// sums (rows, f) (+)= inputs' (rows, tiles) by panels (tiles, f); the inputs' rows, one for each tile, are `stride` apart.
void multiply(int64_t stride, int64_t rows, int64_t f, int64_t tiles, const float* inputs, const float* panels, float* sums,
              int64_t distance, const Finish& finish) {
  switch (stride) {
    case 16: return product<1, 16>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 32: return product<1, 32>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 48: return product<1, 48>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 80: return product<1, 80>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 112: return product<1, 112>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 144: return product<1, 144>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    case 208: return product<1, 208>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
    default: return product<1, 272>(rows, f, tiles, inputs, 0, panels, sums, distance, finish);
  }
}

template <int R>
class KernelGradient {
 public:
  static constexpr int M = POINTS + 1 - R;

  KernelGradient(const Conv& s, const float* x, const float* dy, float* dkernel)
      : s_(s), depth_(s.c), wide_(divide_up(s.f, kColumns) * kColumns), x_(x), dy_(dy), dkernel_(dkernel) {}

  void run(ffi::ThreadPool& pool) const {
    const int64_t tiles = s_.tiles(M), blocks = divide_up(tiles, kBlock);
    if (tiles == 0) {
      std::fill_n(dkernel_, R * R * s_.c * s_.f, 0.0f);
      return;
    }
    const int64_t each = depth_.parts * PRODUCTS * inputs_distance() + PRODUCTS * slopes_distance();
    const int64_t most = std::max<int64_t>(1, kGroupBytes / (each * int64_t(sizeof(float))));
    const int64_t groups = divide_up(blocks, most), width = divide_up(blocks, groups);
    Workspace sums(PRODUCTS * sums_distance() * sizeof(float)), space(width * each * sizeof(float));
    for (int64_t g = 0; g < groups; ++g) {
      const Range group = range_of(blocks, groups, g);
      const int64_t count = group.end - group.begin, pieces = std::max<int64_t>(1, 4 * thread_count(pool) / count);
      parallel_for(pool, count * pieces, [&](int64_t part) {
        const Range block = range_of(tiles, blocks, group.begin + part / pieces);
        const Range mine = range_of(block.end - block.begin, pieces, part % pieces);
        float* inputs = space.floats() + part / pieces * each;
        for (int64_t i = mine.begin; i < mine.end; ++i) {
          const Place place = place_of(s_, M, block.begin + i);
          keep_inputs(place, inputs + i * depth_.stride);
          keep_slopes(place, inputs + each - PRODUCTS * slopes_distance() + i * kColumns, block.end - block.begin);
        }
      });
      parallel_for(pool, PRODUCTS * depth_.parts, [&](int64_t part) {
        const int64_t t = part / depth_.parts, q = part % depth_.parts;
        for (int64_t b = 0; b < count; ++b) {
          const Range block = range_of(tiles, blocks, group.begin + b);
          const float* inputs = space.floats() + b * each;
          Finish f;
          f.accumulate = g > 0 || b > 0;
          multiply(depth_.stride, depth_.of(q), wide_, block.end - block.begin,
                   inputs + (q * PRODUCTS + t) * inputs_distance(),
                   inputs + each - (PRODUCTS - t) * slopes_distance(),
                   sums.floats() + t * sums_distance() + q * depth_.each * wide_, wide_, f);
        }
      });
    }
    const int64_t parts = std::min(s_.c, 4 * thread_count(pool));
    parallel_for(pool, parts, [&](int64_t part) {
      const Range range = range_of(s_.c, parts, part);
      for (int64_t c = range.begin; c < range.end; ++c) put(c, sums.floats() + c * wide_);
    });
  }

 private:
  int64_t inputs_distance() const { return kBlock * depth_.stride + LANES; }
  int64_t slopes_distance() const { return kBlock * wide_ + LANES; }
  int64_t sums_distance() const { return s_.c * wide_ + LANES; }

  void keep_inputs(Place place, float* to) const {
    for (int64_t c = 0; c < s_.c; c += LANES) {
      vec made[6][6];
      turn_inputs(s_, x_, place, c, made);
      float* at = to + c / depth_.each * PRODUCTS * inputs_distance() + c % depth_.each;
#pragma GCC unroll 36
      for (int t = 0; t < PRODUCTS; ++t) store(at + t * inputs_distance(), made[t / 6][t % 6]);
    }
  }

  void keep_slopes(Place place, float* to, int64_t height) const {
    const int64_t rows = std::min<int64_t>(M, s_.oh - place.row), columns = std::min<int64_t>(M, s_.ow - place.column);
    const float* from = dy_ + ((place.image * s_.oh + place.row) * s_.ow + place.column) * s_.f;
    for (int64_t j = 0; j < wide_; j += LANES) {
      const int lanes = int(std::max<int64_t>(0, std::min<int64_t>(LANES, s_.f - j)));
      vec in[M][M], made[6][6];
      if (rows == M && columns == M && lanes == LANES) {
#pragma GCC unroll 36
        for (int i = 0; i < M * M; ++i) in[i / M][i % M] = load(from + (i / M * s_.ow + i % M) * s_.f + j);
      } else {
        for (int i = 0; i < M * M; ++i)
          in[i / M][i % M] = i / M < rows && i % M < columns ? load(from + (i / M * s_.ow + i % M) * s_.f + j, lanes) : vec{};
      }
      spread<M>(in, made);
      float* at = to + j / kColumns * height * kColumns + j % kColumns;
#pragma GCC unroll 36
      for (int t = 0; t < PRODUCTS; ++t) store(at + t * slopes_distance(), made[t / 6][t % 6]);
    }
  }

  void put(int64_t c, const float* sums) const {
    for (int64_t j = 0; j < s_.f; j += LANES) {
      vec in[6][6], out[R][R];
#pragma GCC unroll 36
      for (int t = 0; t < PRODUCTS; ++t) in[t / 6][t % 6] = load(sums + t * sums_distance() + j);
      gather<R>(in, out);
      ivec bad{};
      for (auto& row : out)
        for (vec one : row) bad |= not_finite(one);
      const int lanes = int(std::min<int64_t>(LANES, s_.f - j));
      if (__builtin_expect(any(bad), 0)) sum_plainly(c, j, lanes, out);
      for (int tap = 0; tap < R * R; ++tap) store(dkernel_ + (tap * s_.c + c) * s_.f + j, out[tap / R][tap % R], lanes);
    }
  }

  void sum_plainly(int64_t c, int64_t j, int lanes, vec (&out)[R][R]) const {
    for (auto& row : out)
      for (vec& one : row) one = vec{};
    for (int64_t image = 0; image < s_.n; ++image) {
      for (int64_t row = 0; row < s_.oh; ++row) {
        for (int64_t column = 0; column < s_.ow; ++column) {
          const vec slope = load(dy_ + ((image * s_.oh + row) * s_.ow + column) * s_.f + j, lanes);
          for (int tap = 0; tap < R * R; ++tap) {
            const int64_t r = row + tap / R - s_.top, l = column + tap % R - s_.left;
            if (r >= 0 && r < s_.h && l >= 0 && l < s_.w)
              out[tap / R][tap % R] += x_[((image * s_.h + r) * s_.w + l) * s_.c + c] * slope;
          }
        }
        bool lost = true;  // all sums are NaN, and so they stay
        for (auto& taps : out) lost = lost && all_nan(taps, R, lanes);
        if (lost) return;
      }
    }
  }

  const Conv s_;
  const Depth depth_;
  const int64_t wide_;
  const float *x_, *dy_;
  float* dkernel_;
};

ffi::Error GradKernel(ffi::ThreadPool pool, Spec spec, Floats x, Floats dy, ffi::Result<Floats> dkernel) {
  const auto run = [&](auto taps) {
    KernelGradient<decltype(taps)::value>(conv_of(spec), x.typed_data(), dy.typed_data(), dkernel->typed_data()).run(pool);
  };
  if (spec[9] == 3) {
    run(std::integral_constant<int, 3>());
  } else {
    run(std::integral_constant<int, 5>());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(GradKernelHandler, GradKernel,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("winograd_grad_kernel", GradKernelHandler);

}  // namespace winograd
}  // namespace kerasoft
