// The recurrent part of a convolutional LSTM over one to three spatial axes. See conv_lstm.h.
#include "conv_lstm.h"

namespace kerasoft {
namespace {

struct Forward {
  Grid grid;
  int64_t inputs;  // channels of x; 0 if z is given
  const float *z, *x, *input_kernel, *bias, *h0, *c0, *kernel;
  const bool* mask;
  float *sequence, *h, *c, *cells, *gates;

  int64_t channels() const { return grid.filters + inputs; }  // of a pixel in the images: the state's, then the input's
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
  store(at.after.line_at(at.batch, at.line) + column * call.channels() + unit, state, lanes);
  if (call.sequence) store(call.sequence + moment * f + unit, state, lanes);
  if (call.cells) store(call.cells + moment * f + unit, cell, lanes);
  if (call.gates) {
    for (int v = 0; v < 4; ++v) store(call.gates + moment * 4 * f + v * f + unit, saved[v], lanes);
  }
}

KERASOFT_INLINE vec given_gate(const Forward& call, const Step& at, int64_t column, int64_t block, int gate) {
  const Grid& g = call.grid;
  if (call.inputs) return call.bias ? load(call.bias + gate * g.filters + block * LANES, g.lanes(block)) : vec{};
  const int64_t moment = (at.batch * g.steps + at.step) * g.pixels() + at.line * g.size[2] + column;
  return load(call.z + (moment * 4 + gate) * g.filters + block * LANES, g.lanes(block));
}

template <int R>
KERASOFT_INLINE void tile(const Forward& call, const Step& at, int64_t first, int64_t block) {
  const Grid& g = call.grid;
  const int64_t c = call.channels(), depth = g.window[2] * c;
  const float* panel = at.panels + block * g.taps() * depth * 4 * LANES;
  vec sums[R][4];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = given_gate(call, at, first + r, block, v);
  }
  for (int64_t tap = 0; tap < g.taps(); ++tap) {
    multiply<R, 4, ACROSS>(at.before.window_at(at.batch, at.line, tap) + first * c, c, depth,
                           panel + tap * depth * 4 * LANES, sums);
  }
  for (int r = 0; r < R; ++r) finish_pixel(call, at, first + r, block, sums[r]);
}

// R tiles of transformed lines.
template <int R>
KERASOFT_INLINE void turned_tile(const Forward& call, const Step& at, int64_t first, int64_t block) {
  const Grid& g = call.grid;
  const float* panels = at.turned_panels + block * winograd::POINTS * g.taps() * call.channels() * 4 * LANES;
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

// `floats` numbers of each of a line's pixels, which stand so far apart.
inline void copy_line(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t floats, int64_t pixels) {
  if (from_stride == floats && to_stride == floats) {
    std::memcpy(to, from, sizeof(float) * floats * pixels);
  } else {
    for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + i * to_stride, from + i * from_stride, sizeof(float) * floats);
  }
}

// A masked step: the line's states stay.
inline void keep_line(const Forward& call, const Step& at) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, c = call.channels();
  int64_t floats = g.size[2] * f, pixel = (at.batch * g.pixels() + at.line * g.size[2]) * f;
  int64_t moment = ((at.batch * g.steps + at.step) * g.pixels() + at.line * g.size[2]) * f;
  const float* state = at.before.line_at(at.batch, at.line);
  copy_line(state, c, at.after.line_at(at.batch, at.line), c, f, g.size[2]);
  if (call.sequence) copy_line(state, c, call.sequence + moment, f, f, g.size[2]);
  if (call.cells) std::memcpy(call.cells + moment, call.c + pixel, sizeof(float) * floats);
  if (call.gates) std::fill(call.gates + 4 * moment, call.gates + 4 * (moment + floats), 0.0f);
}

// The input of one step beside the line's states, which stand there already; then the line is transformed.
inline void complete_line(const Forward& call, const Bordered& image, int64_t step, int64_t batch, int64_t line) {
  const Grid& g = call.grid;
  if (call.inputs && step < g.steps) {
    const float* from = call.x + ((batch * g.steps + step) * g.pixels() + line * g.size[2]) * call.inputs;
    copy_line(from, call.inputs, image.line_at(batch, line) + g.filters, call.channels(), call.inputs, g.size[2]);
  }
  image.turn(batch, line);
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
  complete_line(call, at.after, at.step + 1, at.batch, at.line);
}

// The kernels' rows of one block, [place of the window][state's channels, input's][4 * LANES].
inline void pack(const Forward& call, int64_t block, float* panel) {
  const int64_t f = call.grid.filters, places = call.grid.taps() * call.grid.window[2];
  for (int64_t place = 0; place < places; ++place) {
    float* to = panel + place * call.channels() * 4 * LANES;
    pack_gates(call.kernel + place * f * 4 * f, f, 4, f, block, to);
    if (call.inputs) {
      pack_gates(call.input_kernel + place * call.inputs * 4 * f, call.inputs, 4, f, block, to + f * 4 * LANES);
    }
  }
}

void run(ffi::ThreadPool& pool, const Forward& call) {
  const Grid& g = call.grid;
  const int64_t f = g.filters, c = call.channels(), depth = g.taps() * g.window[2] * c, line_floats = g.size[2] * f;
  const int64_t turned_depth = g.turns() ? winograd::POINTS * g.taps() * c : 0;
  float *panels, *turned_panels;
  std::vector<Bordered> images;
  auto place = [&](Pieces& pieces) {
    images.clear();
    for (int i = 0; i < 2; ++i) images.push_back(Bordered::of(g, c, false, pieces));
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
    pack(call, b, panel);
    if (g.turns()) turn_panels(panel, g.taps(), c, 4 * LANES, turned_panels + b * turned_depth * 4 * LANES);
  }
  for (const Bordered& image : images) image.clear_border();
  if (call.c != call.c0) std::memcpy(call.c, call.c0, sizeof(float) * g.batch * g.pixels() * f);
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    const float* from = call.h0 + (batch * g.lines() + line) * line_floats;
    copy_line(from, f, images[0].line_at(batch, line), c, f, g.size[2]);
    complete_line(call, images[0], 0, batch, line);
  });
  for (int64_t step = 0; step < g.steps; ++step) {
    const Bordered &before = images[step % 2], &after = images[1 - step % 2];
    each_line(pool, g, [&](int64_t batch, int64_t line) {
      run_line(call, {before, after, panels, turned_panels, step, batch, line});
    });
  }
  const Bordered& last = images[g.steps % 2];
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    copy_line(last.line_at(batch, line), c, call.h + (batch * g.lines() + line) * line_floats, f, f, g.size[2]);
  });
}

// `moments` is z, or x where the input's kernel is given.
ffi::Error forward(ffi::ThreadPool pool, Any moments, Any input_kernel, Any bias, Any h0, Any c0, Any kernel, Any mask,
                   AnyResult sequence, AnyResult h, AnyResult c, AnyResult cells, AnyResult gates) {
  Forward call{grid_of(moments, kernel), 0, given<float>(moments), given<float>(moments), given<float>(input_kernel),
               given<float>(bias), given<float>(h0), given<float>(c0), given<float>(kernel), given<bool>(mask),
               given<float>(sequence), given<float>(h), given<float>(c), given<float>(cells), given<float>(gates)};
  if (call.input_kernel) call.inputs = moments.dimensions().back();
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
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>());

KERASOFT_TARGET("conv_lstm", ConvLstmForward);

}  // namespace
}  // namespace kerasoft
