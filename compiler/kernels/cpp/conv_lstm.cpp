// The recurrent part of a convolutional LSTM, forward and backward, over one to three spatial axes.
//
// z (b, t, s.., 4f) holds the gates' sums of input and bias, computed for all steps before; states are (b, s.., f), the
// kernel is (k.., f, 4f), with stride 1 and padding "same". The state stands in an image with a border of zeros, so the
// sum over the innermost window axis and the channels is over neighbours in memory: a row of pixels times a panel, as in
// an LSTM's product, for each place of the outer window axes. A step is cut among the threads by lines of pixels.
#include "recurrent.h"
#include "registry.h"

namespace kerasoft {
namespace {

struct Grid {
  int64_t batch, steps, size[3], window[3], filters;  // sizes and windows of depth, height, width; 1 for missing axes

  int64_t lines() const { return size[0] * size[1]; }  // of one image
  int64_t pixels() const { return lines() * size[2]; }
  int64_t taps() const { return window[0] * window[1]; }
  int64_t blocks() const { return blocks_of(filters); }
  int lanes(int64_t block) const { return int(std::min<int64_t>(LANES, filters - block * LANES)); }
};

// Images with a border, `channels` numbers a pixel. A window that begins at a pixel's own place in it covers the pixel's
// neighbours: `low` of them before it.
struct Bordered {
  Grid grid;
  int64_t channels, low[3];
  float* data;

  int64_t width(int axis) const { return grid.size[axis] + grid.window[axis] - 1; }
  int64_t image() const { return width(0) * width(1) * width(2) * channels; }
  int64_t floats() const { return grid.batch * image(); }
  // Where the window of the line's first pixel begins, for one place of the outer window axes.
  const float* window_at(int64_t batch, int64_t line, int64_t tap) const {
    int64_t d = line / grid.size[1] + tap / grid.window[1], h = line % grid.size[1] + tap % grid.window[1];
    return data + batch * image() + (d * width(1) + h) * width(2) * channels;
  }
  float* line_at(int64_t batch, int64_t line) const {
    int64_t d = line / grid.size[1] + low[0], h = line % grid.size[1] + low[1];
    return data + batch * image() + ((d * width(1) + h) * width(2) + low[2]) * channels;
  }
  static Bordered of(const Grid& grid, int64_t channels, bool flipped, Pieces& pieces) {
    Bordered made{grid, channels, {}, nullptr};
    for (int axis = 0; axis < 3; ++axis) {
      int64_t before = (grid.window[axis] - 1) / 2;
      made.low[axis] = flipped ? grid.window[axis] - 1 - before : before;
    }
    made.data = pieces.take(made.floats());
    return made;
  }
};

// body(batch, line) for all lines of all images, cut among the threads.
template <typename Body>
void each_line(ffi::ThreadPool& pool, const Grid& grid, const Body& body) {
  int64_t lines = grid.batch * grid.lines();
  double work = 2.0 * lines * grid.size[2] * grid.taps() * grid.window[2] * grid.filters * 4 * grid.filters;
  int64_t parts = work < 4e5 || thread_count(pool) == 1 ? 1 : std::min(lines, 4 * thread_count(pool));
  parallel_for(pool, parts, [&](int64_t part) {
    Range range = range_of(lines, parts, part);
    for (int64_t i = range.begin; i < range.end; ++i) body(i / grid.lines(), i % grid.lines());
  });
}

struct Forward {
  Grid grid;
  const float *z, *h0, *c0, *kernel;
  const bool* mask;
  float *sequence, *h, *c, *cells, *gates;
};

template <int R>
KERASOFT_INLINE void tile(const Forward& call, const Bordered& before, const Bordered& after, const float* panel,
                          int64_t step, int64_t batch, int64_t line, int64_t first, int64_t block) {
  const Grid& g = call.grid;
  int64_t f = g.filters, unit = block * LANES, depth = g.window[2] * f;
  int64_t pixel = batch * g.pixels() + line * g.size[2] + first;
  int64_t moment = (batch * g.steps + step) * g.pixels() + line * g.size[2] + first;
  int lanes = g.lanes(block);
  vec sums[R][4];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = load(call.z + (moment + r) * 4 * f + v * f + unit, lanes);
  }
  for (int64_t tap = 0; tap < g.taps(); ++tap) {
    multiply<R, 4, ACROSS>(before.window_at(batch, line, tap) + first * f, f, depth, panel + tap * depth * 4 * LANES, sums);
  }
  float* next = after.line_at(batch, line) + first * f + unit;
  for (int r = 0; r < R; ++r) {
    vec cell = load(call.c + (pixel + r) * f + unit, lanes), saved[4];
    vec state = step_of(Lstm(), sums[r], vec{}, cell, saved);
    store(call.c + (pixel + r) * f + unit, cell, lanes);
    store(next + r * f, state, lanes);
    if (call.sequence) store(call.sequence + (moment + r) * f + unit, state, lanes);
    if (call.cells) store(call.cells + (moment + r) * f + unit, cell, lanes);
    if (call.gates) {
      for (int v = 0; v < 4; ++v) store(call.gates + (moment + r) * 4 * f + v * f + unit, saved[v], lanes);
    }
  }
}

// A masked step: the line's states stay.
inline void keep_line(const Forward& call, const Bordered& before, const Bordered& after, int64_t step, int64_t batch,
                      int64_t line) {
  const Grid& g = call.grid;
  int64_t floats = g.size[2] * g.filters, pixel = (batch * g.pixels() + line * g.size[2]) * g.filters;
  int64_t moment = ((batch * g.steps + step) * g.pixels() + line * g.size[2]) * g.filters;
  const float* state = before.line_at(batch, line);
  std::memcpy(after.line_at(batch, line), state, sizeof(float) * floats);
  if (call.sequence) std::memcpy(call.sequence + moment, state, sizeof(float) * floats);
  if (call.cells) std::memcpy(call.cells + moment, call.c + pixel, sizeof(float) * floats);
  if (call.gates) std::fill(call.gates + 4 * moment, call.gates + 4 * (moment + floats), 0.0f);
}

void run(ffi::ThreadPool& pool, const Forward& call) {
  const Grid& g = call.grid;
  int64_t f = g.filters, depth = g.taps() * g.window[2] * f, line_floats = g.size[2] * f;
  auto place = [&](Pieces& pieces, std::vector<Bordered>& images) {
    for (int i = 0; i < 2; ++i) images.push_back(Bordered::of(g, f, false, pieces));
    return pieces.take(g.blocks() * depth * 4 * LANES);
  };
  std::vector<Bordered> images, none;
  Pieces counted(nullptr);
  place(counted, none);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  float* panels = place(pieces, images);
  for (int64_t b = 0; b < g.blocks(); ++b) pack_gates(call.kernel, depth, 4, f, b, panels + b * depth * 4 * LANES);
  for (const Bordered& image : images) std::fill(image.data, image.data + image.floats(), 0.0f);
  if (call.c != call.c0) std::memcpy(call.c, call.c0, sizeof(float) * g.batch * g.pixels() * f);
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    std::memcpy(images[0].line_at(batch, line), call.h0 + (batch * g.lines() + line) * line_floats,
                sizeof(float) * line_floats);
  });
  for (int64_t step = 0; step < g.steps; ++step) {
    const Bordered &before = images[step % 2], &after = images[1 - step % 2];
    each_line(pool, g, [&](int64_t batch, int64_t line) {
      if (call.mask && !call.mask[batch * g.steps + step]) return keep_line(call, before, after, step, batch, line);
      for (int64_t block = 0; block < g.blocks(); ++block) {
        const float* panel = panels + block * depth * 4 * LANES;
        each_tile<tile_rows(4)>(g.size[2], [&](auto r, int64_t first) {
          tile<decltype(r)::value>(call, before, after, panel, step, batch, line, first, block);
        });
      }
    });
  }
  const Bordered& last = images[g.steps % 2];
  each_line(pool, g, [&](int64_t batch, int64_t line) {
    std::memcpy(call.h + (batch * g.lines() + line) * line_floats, last.line_at(batch, line), sizeof(float) * line_floats);
  });
}

struct Backward {
  Grid grid;
  const float *c0, *kernel;
  const bool* mask;
  const float *gates, *cells, *d_sequence;
  float *dz, *dh, *dc;  // dh and dc hold what arrived for the last states, and become those of the first
};

// One step back for R pixels and V vectors of their state: what reaches the state from the step after, through the
// recurrent kernel, and then the gradients of the step's gates. `step` is -1 when only the first state's is left.
template <int R, int V>
KERASOFT_INLINE void tile_back(const Backward& call, const Bordered& later, const Bordered& now, const float* panel,
                               int64_t step, int64_t batch, int64_t line, int64_t first, int64_t channel) {
  const Grid& g = call.grid;
  int64_t f = g.filters, depth = g.window[2] * 4 * f;
  int64_t pixel = batch * g.pixels() + line * g.size[2] + first;
  int64_t moment = (batch * g.steps + step) * g.pixels() + line * g.size[2] + first;
  vec sums[R][V] = {};
  if (step + 1 < g.steps && !(call.mask && !call.mask[batch * g.steps + step + 1])) {
    for (int64_t tap = 0; tap < g.taps(); ++tap) {
      multiply<R, V, ACROSS>(later.window_at(batch, line, tap) + first * 4 * f, 4 * f, depth,
                             panel + tap * depth * V * LANES, sums);
    }
  }
  bool valid = step >= 0 && !(call.mask && !call.mask[batch * g.steps + step]);
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      int64_t unit = channel + v * LANES;
      int lanes = int(std::min<int64_t>(LANES, f - unit));
      float* dh = call.dh + (pixel + r) * f + unit;
      vec d = sums[r][v] + load(dh, lanes), direct = d;
      if (step >= 0) {
        if (call.d_sequence) d += load(call.d_sequence + (moment + r) * f + unit, lanes);
        direct = d;
        vec of_sums[4] = {};
        if (valid) {
          const float* gates = call.gates + (moment + r) * 4 * f + unit;
          vec saved[4];
          for (int k = 0; k < 4; ++k) saved[k] = load(gates + k * f, lanes);
          float* at = call.dc + (pixel + r) * f + unit;
          vec dc = load(at, lanes);
          const float* cells = step ? call.cells + (moment + r - g.pixels()) * f : call.c0 + (pixel + r) * f;
          gradients(Lstm(), d, dc, direct, saved, vec{}, load(cells + unit, lanes), vec{}, of_sums, nullptr);
          store(at, dc, lanes);
        }
        float* image = now.line_at(batch, line) + (first + r) * 4 * f + unit;
        for (int k = 0; k < 4; ++k) {
          store(call.dz + (moment + r) * 4 * f + k * f + unit, of_sums[k], lanes);
          store(image + k * f, of_sums[k], lanes);
        }
      }
      store(dh, direct, lanes);
    }
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
  Panels shape{g.filters, g.taps() * g.window[2] * 4 * g.filters};
  auto place = [&](Pieces& pieces, std::vector<Bordered>& images) {
    for (int i = 0; i < 2; ++i) images.push_back(Bordered::of(g, 4 * g.filters, true, pieces));
    return pieces.take(shape.floats());
  };
  std::vector<Bordered> images, none;
  Pieces counted(nullptr);
  place(counted, none);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  float* panels = place(pieces, images);
  pack_turned(call.kernel, g, shape, panels);
  for (const Bordered& image : images) std::fill(image.data, image.data + image.floats(), 0.0f);
  for (int64_t step = g.steps - 1; step >= -1; --step) {
    const Bordered &later = images[(step + 1) % 2], &now = images[(step + 2) % 2];
    each_line(pool, g, [&](int64_t batch, int64_t line) {
      for (int64_t p = 0; p < shape.count(); ++p) {
        with_constant<4>(shape.vectors_of(p), [&](auto vectors) {
          constexpr int V = decltype(vectors)::value;
          each_tile<tile_rows(V)>(g.size[2], [&](auto r, int64_t first) {
            tile_back<decltype(r)::value, V>(call, later, now, panels + shape.offset(p), step, batch, line, first,
                                             p * 4 * LANES);
          });
        });
      }
    });
  }
}

using Any = ffi::AnyBuffer;
using AnyResult = ffi::Result<ffi::AnyBuffer>;

// From the shapes (b, t, s.., n) of something over time and (k.., f, 4f) of the kernel.
Grid grid_of(const Any& moments, const Any& kernel) {
  auto shape = moments.dimensions(), window = kernel.dimensions();
  Grid g{shape[0], shape[1], {1, 1, 1}, {1, 1, 1}, int64_t(window[window.size() - 2])};
  int64_t rank = int64_t(shape.size()) - 3;
  for (int64_t axis = 0; axis < rank; ++axis) {
    g.size[3 - rank + axis] = shape[2 + axis];
    g.window[3 - rank + axis] = window[axis];
  }
  return g;
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

XLA_FFI_DEFINE_HANDLER(ConvLstmForward, forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>());
XLA_FFI_DEFINE_HANDLER(ConvLstmBackward, backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                           .Ret<Any>().Ret<Any>().Ret<Any>());

KERASOFT_TARGET("conv_lstm", ConvLstmForward);
KERASOFT_TARGET("conv_lstm_grad", ConvLstmBackward);

}  // namespace
}  // namespace kerasoft
