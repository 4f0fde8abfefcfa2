// What both passes of a convolutional LSTM's recurrent part share: images with borders, lines of them transformed, and the
// way the work is cut.
//
// z (b, t, s.., 4f) holds the gates' sums of input and bias, computed for all steps before; states are (b, s.., f), the
// kernel is (k.., f, 4f), with stride 1 and padding "same". The state stands in an image with a border of zeros, so the
// sum over the innermost window axis and the channels is over neighbours in memory: a row of pixels times a panel, as in
// an LSTM's product, for each place of the outer window axes. A step is cut among the threads by lines of pixels.
//
// Or the input itself is given, whose convolution is then summed with the state's: its channels stand behind the state's
// in the image, its kernel's rows behind those of the recurrent kernel. So the gates' sums are never written to memory.
//
// Where the innermost window is 3, lines also stand transformed (winograd.h, along that axis only): 4 pixels from 6
// products in place of 12. A tile whose products are not all finite is computed by plain sums, so that NaN and infinities
// come out where they do there.
#pragma once

#include "recurrent.h"
#include "registry.h"
#include "winograd.h"

namespace kerasoft {

constexpr int WIDE = 4;  // pixels of a tile of transformed lines

struct Grid {
  int64_t batch, steps, size[3], window[3], filters;  // sizes and windows of depth, height, width; 1 for missing axes

  int64_t lines() const { return size[0] * size[1]; }  // of one image
  int64_t pixels() const { return lines() * size[2]; }
  int64_t taps() const { return window[0] * window[1]; }
  int64_t blocks() const { return blocks_of(filters); }
  int lanes(int64_t block) const { return int(std::min<int64_t>(LANES, filters - block * LANES)); }
  bool turns() const { return window[2] == 3 && size[2] >= WIDE; }  // lines are transformed
  int64_t tiles() const { return (size[2] + WIDE - 1) / WIDE; }       // of a line
};

// Images with a border, `channels` numbers a pixel. A window that begins at a pixel's own place in it covers the pixel's
// neighbours: `low` of them before it.
struct Bordered {
  Grid grid;
  int64_t channels, low[3];
  float* data;
  float* turned;  // of each line [6][tiles][channels], or null

  int64_t width(int axis) const { return grid.size[axis] + grid.window[axis] - 1; }
  int64_t image() const { return width(0) * width(1) * width(2) * channels; }
  int64_t turned_line() const { return winograd::POINTS * grid.tiles() * channels; }
  int64_t turned_image() const { return width(0) * width(1) * turned_line(); }
  // Which of the image's lines stands at one place of the window over `line`.
  int64_t line_of(int64_t line, int64_t tap) const {
    int64_t d = line / grid.size[1] + tap / grid.window[1], h = line % grid.size[1] + tap % grid.window[1];
    return d * width(1) + h;
  }
  // Where the window of the line's first pixel begins, for one place of the outer window axes.
  const float* window_at(int64_t batch, int64_t line, int64_t tap) const {
    return data + batch * image() + line_of(line, tap) * width(2) * channels;
  }
  const float* turned_at(int64_t batch, int64_t line, int64_t tap) const {
    return turned + batch * turned_image() + line_of(line, tap) * turned_line();
  }
  int64_t own_line(int64_t line) const {
    return (line / grid.size[1] + low[0]) * width(1) + line % grid.size[1] + low[1];
  }
  float* line_at(int64_t batch, int64_t line) const {
    return data + batch * image() + (own_line(line) * width(2) + low[2]) * channels;
  }

  // Transforms a line; to be called when it has changed.
  void turn(int64_t batch, int64_t line) const {
    if (!turned) return;
    const float* from = data + batch * image() + own_line(line) * width(2) * channels;
    float* to = turned + batch * turned_image() + own_line(line) * turned_line();
    for (int64_t tile = 0; tile < grid.tiles(); ++tile) {
      for (int64_t c = 0; c < channels; c += LANES) {
        const int lanes = int(std::min<int64_t>(LANES, channels - c));
        vec in[winograd::POINTS], out[winograd::POINTS];
        for (int i = 0; i < winograd::POINTS; ++i) {
          const int64_t place = tile * WIDE + i;
          in[i] = place < width(2) ? load(from + place * channels + c, lanes) : vec{};
        }
        winograd::turn(in, out);
        for (int i = 0; i < winograd::POINTS; ++i) store(to + (i * grid.tiles() + tile) * channels + c, out[i], lanes);
      }
    }
  }

  static Bordered of(const Grid& grid, int64_t channels, bool flipped, Pieces& pieces) {
    Bordered made{grid, channels, {}, nullptr, nullptr};
    for (int axis = 0; axis < 3; ++axis) {
      int64_t before = (grid.window[axis] - 1) / 2;
      made.low[axis] = flipped ? grid.window[axis] - 1 - before : before;
    }
    made.data = pieces.take(made.grid.batch * made.image());
    if (grid.turns()) made.turned = pieces.take(made.grid.batch * made.turned_image());
    return made;
  }
  // Zeros where no line is ever written: around the image.
  void clear_border() const {
    const int64_t floats = width(2) * channels, before = low[2] * channels, after = before + grid.size[2] * channels;
    for (int64_t i = 0; i < grid.batch * width(0) * width(1); ++i) {
      const int64_t d = i / width(1) % width(0) - low[0], h = i % width(1) - low[1];
      float* line = data + i * floats;
      if (d >= 0 && d < grid.size[0] && h >= 0 && h < grid.size[1]) {
        std::fill(line, line + before, 0.0f);
        std::fill(line + after, line + floats, 0.0f);
      } else {
        std::fill(line, line + floats, 0.0f);
        if (turned) std::fill(turned + i * turned_line(), turned + (i + 1) * turned_line(), 0.0f);
      }
    }
  }
};

// The products of R tiles of a line with the panels [point][tap][channel][V * LANES], and where they are not finite.
template <int R, int V>
KERASOFT_INLINE void turned_products(const Bordered& image, const float* panels, int64_t batch, int64_t line, int64_t first,
                                     vec (&products)[winograd::POINTS][R][V], ivec (&broken)[R]) {
  const int64_t c = image.channels, taps = image.grid.taps();
  for (int r = 0; r < R; ++r) broken[r] = ivec{};
  for (int point = 0; point < winograd::POINTS; ++point) {
    vec sums[R][V] = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* rows = image.turned_at(batch, line, tap) + (point * image.grid.tiles() + first) * c;
      multiply<R, V, ACROSS>(rows, c, c, panels + (point * taps + tap) * c * V * LANES, sums);
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) {
        products[point][r][v] = sums[r][v];
        broken[r] |= winograd::not_finite(sums[r][v]);
      }
    }
  }
}

// Panels [point][tap][channel][width] from plain ones [tap][3][channel][width]; width is a multiple of LANES.
inline void turn_panels(const float* plain, int64_t taps, int64_t channels, int64_t width, float* to) {
  const int64_t row = channels * width;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t i = 0; i < row; i += LANES) {
      vec in[3], out[winograd::POINTS];
      for (int k = 0; k < 3; ++k) in[k] = load(plain + (tap * 3 + k) * row + i);
      winograd::spread<3>(in, out);
      for (int point = 0; point < winograd::POINTS; ++point) store(to + (point * taps + tap) * row + i, out[point]);
    }
  }
}

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

using Any = ffi::AnyBuffer;
using AnyResult = ffi::Result<ffi::AnyBuffer>;

// From the shapes (b, t, s.., n) of something over time and (k.., f, 4f) of the kernel.
inline Grid grid_of(const Any& moments, const Any& kernel) {
  auto shape = moments.dimensions(), window = kernel.dimensions();
  Grid g{shape[0], shape[1], {1, 1, 1}, {1, 1, 1}, int64_t(window[window.size() - 2])};
  int64_t rank = int64_t(shape.size()) - 3;
  for (int64_t axis = 0; axis < rank; ++axis) {
    g.size[3 - rank + axis] = shape[2 + axis];
    g.window[3 - rank + axis] = window[axis];
  }
  return g;
}

}  // namespace kerasoft
