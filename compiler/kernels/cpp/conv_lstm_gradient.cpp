// The recurrent part of a convolutional LSTM going back: gradients of the gates' sums and of the states. See conv_lstm.h.
#include "conv_lstm.h"

namespace kerasoft {
namespace {

struct Backward {
  Grid grid;
  const float *c0, *kernel;
  const bool* mask;
  const float *gates, *cells, *d_sequence;
  float *dz, *dh, *dc;  // dh and dc hold what arrived for the last states, and become those of the first
};

// The images of gates' gradients of the step after and of this one, and the kernel's panels. `step` is -1 when only the first
// state's gradient is left.
struct Step {
  const Bordered &later, &now;
  const float *panels, *turned_panels;  // from the first vector that a tile computes on
  int64_t step, batch, line;

  bool valid(const Backward& call, int64_t at) const { return !call.mask || call.mask[batch * call.grid.steps + at]; }
  // Whether the state goes into a step after through the recurrent kernel.
  bool is_read(const Backward& call) const { return step + 1 < call.grid.steps && valid(call, step + 1); }
};

// One pixel, from what reaches V vectors of its state through the recurrent kernel to its gates' gradients.
template <int V>
KERASOFT_INLINE void finish_pixel(const Backward& call, const Step& at, int64_t column, int64_t channel, const vec* sums) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, place = at.line * g.size[2] + column;
  const int64_t pixel = at.batch * g.pixels() + place, moment = (at.batch * g.steps + at.step) * g.pixels() + place;
  const bool valid = at.step >= 0 && at.valid(call, at.step);
  for (int v = 0; v < V; ++v) {
    const int64_t unit = channel + v * LANES;
    const int lanes = int(std::min<int64_t>(LANES, f - unit));
    float* dh = call.dh + pixel * f + unit;
    vec d = sums[v] + load(dh, lanes), direct = d;
    if (at.step >= 0) {
      if (call.d_sequence) d += load(call.d_sequence + moment * f + unit, lanes);
      direct = d;
      vec of_sums[4] = {};
      if (valid) {
        const float* gates = call.gates + moment * 4 * f + unit;
        vec saved[4];
        for (int k = 0; k < 4; ++k) saved[k] = load(gates + k * f, lanes);
        float* to = call.dc + pixel * f + unit;
        vec dc = load(to, lanes);
        const float* cells = at.step ? call.cells + (moment - g.pixels()) * f : call.c0 + pixel * f;
        gradients(Lstm(), d, dc, direct, saved, vec{}, load(cells + unit, lanes), vec{}, of_sums, nullptr);
        store(to, dc, lanes);
      }
      float* image = at.now.line_at(at.batch, at.line) + column * 4 * f + unit;
      for (int k = 0; k < 4; ++k) {
        store(call.dz + moment * 4 * f + k * f + unit, of_sums[k], lanes);
        store(image + k * f, of_sums[k], lanes);
      }
    }
    store(dh, direct, lanes);
  }
}

template <int R, int V>
KERASOFT_INLINE void tile_back(const Backward& call, const Step& at, int64_t first, int64_t channel) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, depth = g.window[2] * 4 * f;
  vec sums[R][V] = {};
  if (at.is_read(call)) {
    for (int64_t tap = 0; tap < g.taps(); ++tap) {
      multiply<R, V, ACROSS>(at.later.window_at(at.batch, at.line, tap) + first * 4 * f, 4 * f, depth,
                             at.panels + tap * depth * V * LANES, sums);
    }
  }
  for (int r = 0; r < R; ++r) finish_pixel<V>(call, at, first + r, channel, sums[r]);
}

// R tiles of transformed lines.
template <int R, int V>
KERASOFT_INLINE void turned_tile_back(const Backward& call, const Step& at, int64_t first, int64_t channel) {
  const Grid& g = call.grid;
  vec products[winograd::POINTS][R][V];
  ivec broken[R];
  turned_products<R, V>(at.later, at.turned_panels, at.batch, at.line, first, products, broken);
  for (int r = 0; r < R; ++r) {
    const int64_t column = (first + r) * WIDE, count = std::min<int64_t>(WIDE, g.size[2] - column);
    if (winograd::any(broken[r])) {
      for (int64_t i = 0; i < count; ++i) tile_back<1, V>(call, at, column + i, channel);
      continue;
    }
    vec sums[WIDE][V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      vec in[winograd::POINTS], out[WIDE];
#pragma GCC unroll 6
      for (int point = 0; point < winograd::POINTS; ++point) in[point] = products[point][r][v];
      winograd::gather<WIDE>(in, out);
#pragma GCC unroll 4
      for (int i = 0; i < WIDE; ++i) sums[i][v] = out[i];
    }
    for (int64_t i = 0; i < count; ++i) finish_pixel<V>(call, at, column + i, channel, sums[i]);
  }
}

// A line, V vectors of its state from `channel` on.
template <int V>
void line_back(const Backward& call, const Step& at, int64_t channel) {
  const Grid& g = call.grid;
  if (g.turns() && at.is_read(call)) {
    each_tile<tile_rows(V)>(g.tiles(), [&](auto r, int64_t first) {
      turned_tile_back<decltype(r)::value, V>(call, at, first, channel);
    });
  } else {
    each_tile<tile_rows(V)>(g.size[2], [&](auto r, int64_t first) {
      tile_back<decltype(r)::value, V>(call, at, first, channel);
    });
  }
}

// The kernel (taps, window, f, 4f) with its window turned round and its channels exchanged, in panels.
inline void pack_turned(const float* kernel, const Grid& g, const Panels& shape, float* to) {
  int64_t f = g.filters, places = g.taps() * g.window[2];
  for (int64_t p = 0; p < shape.count(); ++p) {
    int64_t width = shape.vectors_of(p) * LANES;
    float* panel = to + shape.offset(p);
    std::fill(panel, panel + shape.depth * width, 0.0f);
    for (int64_t place = 0; place < places; ++place) {
      for (int64_t c = 0; c < std::min(width, f - p * 4 * LANES); ++c) {
        const float* from = kernel + ((places - 1 - place) * f + p * 4 * LANES + c) * 4 * f;
        for (int64_t n = 0; n < 4 * f; ++n) panel[(place * 4 * f + n) * width + c] = from[n];
      }
    }
  }
}

void run(ffi::ThreadPool& pool, const Backward& call) {
  const Grid& g = call.grid;
  const Panels shape{g.filters, g.taps() * g.window[2] * 4 * g.filters};
  float *panels, *turned_panels;
  std::vector<Bordered> images;
  auto place = [&](Pieces& pieces) {
    images.clear();
    for (int i = 0; i < 2; ++i) images.push_back(Bordered::of(g, 4 * g.filters, true, pieces));
    panels = pieces.take(shape.floats());
    turned_panels = pieces.take(g.turns() ? 2 * shape.floats() : 0);
  };
  Pieces counted(nullptr);
  place(counted);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  place(pieces);
  pack_turned(call.kernel, g, shape, panels);
  for (int64_t p = 0; g.turns() && p < shape.count(); ++p) {
    turn_panels(panels + shape.offset(p), g.taps(), 4 * g.filters, shape.vectors_of(p) * LANES,
                turned_panels + 2 * shape.offset(p));
  }
  for (const Bordered& image : images) image.clear_border();
  for (int64_t step = g.steps - 1; step >= -1; --step) {
    const Bordered &later = images[(step + 1) % 2], &now = images[(step + 2) % 2];
    each_line(pool, g, [&](int64_t batch, int64_t line) {
      for (int64_t p = 0; p < shape.count(); ++p) {
        const int64_t offset = shape.offset(p);
        const Step at{later, now, panels + offset, turned_panels + 2 * offset, step, batch, line};
        with_constant<4>(shape.vectors_of(p), [&](auto v) { line_back<decltype(v)::value>(call, at, p * 4 * LANES); });
      }
      if (step >= 0) now.turn(batch, line);
    });
  }
}

ffi::Error backward(ffi::ThreadPool pool, Any c0, Any kernel, Any mask, Any gates, Any cells, Any d_sequence, Any d_h,
                    Any d_c, AnyResult dz, AnyResult dh, AnyResult dc) {
  Backward call{grid_of(gates, kernel), given<float>(c0),    given<float>(kernel),     given<bool>(mask),
                given<float>(gates),    given<float>(cells), given<float>(d_sequence), given<float>(dz),
                given<float>(dh),       given<float>(dc)};
  int64_t floats = call.grid.batch * call.grid.pixels() * call.grid.filters;
  for (auto [from, to] : {std::pair(given<float>(d_h), call.dh), std::pair(given<float>(d_c), call.dc)}) {
    if (!from) {
      std::fill(to, to + floats, 0.0f);
    } else if (from != to) {
      std::memcpy(to, from, sizeof(float) * floats);
    }
  }
  try {
    run(pool, call);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(ConvLstmBackward, backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Ret<Any>().Ret<Any>().Ret<Any>());

KERASOFT_TARGET("conv_lstm_grad", ConvLstmBackward);

}  // namespace
}  // namespace kerasoft
