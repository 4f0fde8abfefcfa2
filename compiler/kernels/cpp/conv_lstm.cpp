// The recurrent part of a convolutional LSTM over one to three spatial axes. See conv_lstm.h.
#include "conv_lstm.h"

namespace kerasoft {
namespace {

struct Forward {
  Grid grid;
  const float *z, *h0, *c0, *kernel;
  const bool* mask;
  float *sequence, *h, *c, *cells, *gates;
};

// Where tiles read and write: the states' images before and after a step, and the kernel's panels of all blocks.
struct Step {
  const Bordered &before, &after;
  const float *panels, *turned_panels;
  int64_t step, batch, line;
};

// From a pixel's sums of input and state to its new state.
KERASOFT_INLINE void finish_pixel(const Forward& call, const Step& at, int64_t column, int64_t block, const vec* sums) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, unit = block * LANES, place = at.line * g.size[2] + column;
  const int64_t pixel = at.batch * g.pixels() + place, moment = (at.batch * g.steps + at.step) * g.pixels() + place;
  const int lanes = g.lanes(block);
  vec cell = load(call.c + pixel * f + unit, lanes), saved[4];
  vec state = step_of(Lstm(), sums, vec{}, cell, saved);
  store(call.c + pixel * f + unit, cell, lanes);
  store(at.after.line_at(at.batch, at.line) + column * f + unit, state, lanes);
  if (call.sequence) store(call.sequence + moment * f + unit, state, lanes);
  if (call.cells) store(call.cells + moment * f + unit, cell, lanes);
  if (call.gates) {
    for (int v = 0; v < 4; ++v) store(call.gates + moment * 4 * f + v * f + unit, saved[v], lanes);
  }
}

KERASOFT_INLINE vec given_gate(const Forward& call, const Step& at, int64_t column, int64_t block, int gate) {
  const Grid& g = call.grid;
  const int64_t moment = (at.batch * g.steps + at.step) * g.pixels() + at.line * g.size[2] + column;
  return load(call.z + (moment * 4 + gate) * g.filters + block * LANES, g.lanes(block));
}

template <int R>
KERASOFT_INLINE void tile(const Forward& call, const Step& at, int64_t first, int64_t block) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, depth = g.window[2] * f;
  const float* panel = at.panels + block * g.taps() * depth * 4 * LANES;
  vec sums[R][4];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = given_gate(call, at, first + r, block, v);
  }
  for (int64_t tap = 0; tap < g.taps(); ++tap) {
    multiply<R, 4, ACROSS>(at.before.window_at(at.batch, at.line, tap) + first * f, f, depth,
                           panel + tap * depth * 4 * LANES, sums);
  }
  for (int r = 0; r < R; ++r) finish_pixel(call, at, first + r, block, sums[r]);
}

// R tiles of transformed lines.
template <int R>
KERASOFT_INLINE void turned_tile(const Forward& call, const Step& at, int64_t first, int64_t block) {
  const Grid& g = call.grid;
  const float* panels = at.turned_panels + block * winograd::POINTS * g.taps() * g.filters * 4 * LANES;
  vec products[winograd::POINTS][R][4];
  ivec broken[R];
  turned_products<R, 4>(at.before, panels, at.batch, at.line, first, products, broken);
  for (int r = 0; r < R; ++r) {
    const int64_t column = (first + r) * WIDE, count = std::min<int64_t>(WIDE, g.size[2] - column);
    if (winograd::any(broken[r])) {
      for (int64_t i = 0; i < count; ++i) tile<1>(call, at, column + i, block);
      continue;
    }
    vec sums[WIDE][4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      vec in[winograd::POINTS], out[WIDE];
#pragma GCC unroll 6
      for (int point = 0; point < winograd::POINTS; ++point) in[point] = products[point][r][v];
      winograd::gather<WIDE>(in, out);
#pragma GCC unroll 4
      for (int i = 0; i < WIDE; ++i) sums[i][v] = out[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int v = 0; v < 4; ++v) sums[i][v] += given_gate(call, at, column + i, block, v);
      finish_pixel(call, at, column + i, block, sums[i]);
    }
  }
}

// A masked step: the line's states stay.
inline void keep_line(const Forward& call, const Step& at) {
  const Grid& g = call.grid;
  int64_t floats = g.size[2] * g.filters, pixel = (at.batch * g.pixels() + at.line * g.size[2]) * g.filters;
  int64_t moment = ((at.batch * g.steps + at.step) * g.pixels() + at.line * g.size[2]) * g.filters;
  const float* state = at.before.line_at(at.batch, at.line);
  std::memcpy(at.after.line_at(at.batch, at.line), state, sizeof(float) * floats);
  if (call.sequence) std::memcpy(call.sequence + moment, state, sizeof(float) * floats);
  if (call.cells) std::memcpy(call.cells + moment, call.c + pixel, sizeof(float) * floats);
  if (call.gates) std::fill(call.gates + 4 * moment, call.gates + 4 * (moment + floats), 0.0f);
}

void run_line(const Forward& call, const Step& at) {
  const Grid& g = call.grid;
  if (call.mask && !call.mask[at.batch * g.steps + at.step]) {
    keep_line(call, at);
  } else {
    for (int64_t block = 0; block < g.blocks(); ++block) {
      if (g.turns()) {
        each_tile<tile_rows(4)>(g.tiles(), [&](auto r, int64_t first) {
          turned_tile<decltype(r)::value>(call, at, first, block);
        });
      } else {
        each_tile<tile_rows(4)>(g.size[2], [&](auto r, int64_t first) {
          tile<decltype(r)::value>(call, at, first, block);
        });
      }
    }
  }
  at.after.turn(at.batch, at.line);
}

void run(ffi::ThreadPool& pool, const Forward& call) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, depth = g.taps() * g.window[2] * f, line_floats = g.size[2] * f;
  const int64_t turned_depth = g.turns() ? winograd::POINTS * g.taps() * f : 0;
  float *panels, *turned_panels;
  std::vector<Bordered> images;
  auto place = [&](Pieces& pieces) {
    images.clear();
    for (int i = 0; i < 2; ++i) images.push_back(Bordered::of(g, f, false, pieces));
    panels = pieces.take(g.blocks() * depth * 4 * LANES);
    turned_panels = pieces.take(g.blocks() * turned_depth * 4 * LANES);
  };
  Pieces counted(nullptr);
  place(counted);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  place(pieces);
  for (int64_t b = 0; b < g.blocks(); ++b) {
    float* panel = panels + b * depth * 4 * LANES;
    pack_gates(call.kernel, depth, 4, f, b, panel);
    if (g.turns()) turn_panels(panel, g.taps(), f, 4 * LANES, turned_panels + b * turned_depth * 4 * LANES);
  }
  for (const Bordered& image : images) image.clear();
  if (call.c != call.c0) std::memcpy(call.c, call.c0, sizeof(float) * g.batch * g.pixels() * f);
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    std::memcpy(images[0].line_at(batch, line), call.h0 + (batch * g.lines() + line) * line_floats,
                sizeof(float) * line_floats);
    images[0].turn(batch, line);
  });
  for (int64_t step = 0; step < g.steps; ++step) {
    const Bordered &before = images[step % 2], &after = images[1 - step % 2];
    each_line(pool, g, [&](int64_t batch, int64_t line) {
      run_line(call, {before, after, panels, turned_panels, step, batch, line});
    });
  }
  const Bordered& last = images[g.steps % 2];
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    std::memcpy(call.h + (batch * g.lines() + line) * line_floats, last.line_at(batch, line), sizeof(float) * line_floats);
  });
}

ffi::Error forward(ffi::ThreadPool pool, Any z, Any h0, Any c0, Any kernel, Any mask, AnyResult sequence, AnyResult h,
                   AnyResult c, AnyResult cells, AnyResult gates) {
  Forward call{grid_of(z, kernel),     given<float>(z), given<float>(h0),       given<float>(c0),
               given<float>(kernel),   given<bool>(mask), given<float>(sequence), given<float>(h),
               given<float>(c),        given<float>(cells), given<float>(gates)};
  try {
    run(pool, call);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(ConvLstmForward, forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>());

KERASOFT_TARGET("conv_lstm", ConvLstmForward);

}  // namespace
}  // namespace kerasoft
