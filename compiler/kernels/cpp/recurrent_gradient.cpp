// The gradients of LSTM, GRU (reset after) and tanh RNN: time in reverse, the weights' gradients as products over time.
//
// A thread takes its rows through all steps without waiting for others. It works in chunks of steps: first the gradients
// of the gates' sums of each step and, through the recurrent kernel, of the state before; then, for all steps of the
// chunk at once, the gradients of x and what the chunk adds to the kernels' gradients. Each thread adds up kernel
// gradients of its own; at the end they are summed in the order of the threads.
#include "recurrent.h"
#include "registry.h"

namespace kerasoft {
namespace {

constexpr int64_t CHUNK = 256;  // rows times steps: a chunk's gate gradients stay in the second-level cache

struct Backward {
  Sizes sizes;
  const float *x, *h0, *c0, *kernel, *recurrent;
  const bool* mask;
  const float *sequence, *gates, *cells, *d_sequence, *d_h, *d_c;
  bool go_backwards;
  float *dx, *dh0, *dc0, *d_kernel, *d_recurrent, *d_bias;
};

// Gate gradients stand as [row][block][gate][LANES]; this many for one row.
template <class Cell>
int64_t depth_of(const Sizes& s) {
  return s.padded() * Cell::GATES;
}

// A row that does not start at the same place of a cache page as its neighbours: rows are also read as columns.
inline int64_t odd(int64_t floats) { return (floats + 15) / 16 * 16 + 16; }

struct Transposed {
  Panels of_x, of_state;
  float *x, *state;

  template <class Cell>
  static Transposed of(const Backward& call, Pieces& pieces) {
    const Sizes& s = call.sizes;
    Transposed made{{s.features, depth_of<Cell>(s)}, {s.units, depth_of<Cell>(s)}, nullptr, nullptr};
    made.x = pieces.take(call.dx ? made.of_x.floats() : 0);
    made.state = pieces.take(made.of_state.floats());
    return made;
  }
};

// The transpose of a kernel [columns][gates * units], in panels, for the gate gradients of one block of units.
inline void pack_transposed(const float* kernel, const Sizes& s, int gates, int64_t block, const Panels& shape, float* to) {
  int lanes = s.lanes(block);
  for (int64_t p = 0; p < shape.count(); ++p) {
    int64_t width = shape.vectors_of(p) * LANES;
    float* panel = to + shape.offset(p) + block * gates * LANES * width;
    std::fill(panel, panel + gates * LANES * width, 0.0f);
    for (int64_t column = 0; column < std::min(width, shape.columns - p * 4 * LANES); ++column) {
      const float* from = kernel + (p * 4 * LANES + column) * gates * s.units + block * LANES;
      for (int g = 0; g < gates; ++g) {
        for (int l = 0; l < lanes; ++l) panel[(g * LANES + l) * width + column] = from[g * s.units + l];
      }
    }
  }
}

struct Sums {  // of kernel gradients: [block][k][gate][LANES]; of biases: [block][2][gate][LANES]
  float *kernel, *recurrent, *bias;

  template <class Cell>
  static Sums of(const Sizes& s, Pieces& pieces) {
    int64_t depth = depth_of<Cell>(s);
    return {pieces.take(s.features * depth), pieces.take(s.units * depth), pieces.take(2 * depth)};
  }
};

struct Chunk {  // what a thread keeps of the steps that it works on; in a GRU the state's gate gradients differ from x's
  float *of_state, *of_x, *x, *before, *dh, *dc, *panel;

  template <class Cell>
  static Chunk of(const Sizes& s, int64_t rows, int64_t most, Pieces& pieces) {
    int64_t depth = depth_of<Cell>(s);
    Chunk made;
    made.of_state = pieces.take(most * odd(depth));
    made.of_x = Cell::TWO_BIASES ? pieces.take(most * odd(depth)) : made.of_state;
    made.x = pieces.take(most * odd(s.features));
    made.before = pieces.take(most * odd(s.units));
    made.dh = pieces.take(rows * s.padded());
    made.dc = pieces.take(Cell::HAS_CELL ? rows * s.padded() : 0);
    made.panel = pieces.take(most * Cell::GATES * LANES);
    return made;
  }
};

// The gate gradients of one step, into the rows at `to` of the chunk.
template <class Cell>
void step_back(const Backward& call, const Chunk& chunk, int64_t step, Range rows, int64_t to) {
  const Sizes& s = call.sizes;
  int64_t depth = odd(depth_of<Cell>(s)), time = call.go_backwards ? s.steps - 1 - step : step;
  for (int64_t here = 0; here < rows.end - rows.begin; ++here) {
    int64_t row = rows.begin + here;
    bool valid = !call.mask || call.mask[row * s.steps + time];
    const float* before = step ? call.sequence + (row * s.steps + step - 1) * s.units : call.h0 + row * s.units;
    const float* after = call.sequence + (row * s.steps + step) * s.units;
    const float* arrived = call.d_sequence ? call.d_sequence + (row * s.steps + step) * s.units : nullptr;
    const float* gates = call.gates + (step * s.batch + row) * Cell::SAVED * s.units;
    const float* cells = step ? call.cells + ((step - 1) * s.batch + row) * s.units : call.c0 + row * s.units;
    std::memcpy(chunk.before + (to + here) * odd(s.units), before, sizeof(float) * s.units);
    std::memcpy(chunk.x + (to + here) * odd(s.features), call.x + (row * s.steps + time) * s.features,
                sizeof(float) * s.features);
    for (int64_t block = 0; block < s.blocks(); ++block) {
      int64_t unit = block * LANES;
      int lanes = s.lanes(block);
      float* dh = chunk.dh + here * s.padded() + unit;
      vec d = load(dh), direct, of_state[Cell::GATES] = {}, of_x[Cell::GATES] = {};
      if (arrived) d += load(arrived + unit, lanes);
      if (valid) {
        vec saved[Cell::SAVED + 1];
        for (int g = 0; g < Cell::SAVED; ++g) saved[g] = load(gates + g * s.units + unit, lanes);
        float* at = chunk.dc + here * s.padded() + unit;
        vec dc = Cell::HAS_CELL ? load(at) : vec{};
        vec cell_before = Cell::HAS_CELL ? load(cells + unit, lanes) : vec{};
        gradients(Cell(), d, dc, direct, saved, load(before + unit, lanes), cell_before, load(after + unit, lanes),
                  of_state, of_x);
        if (Cell::HAS_CELL) store(at, dc);
      } else {
        direct = d;
      }
      store(dh, direct);
      for (int g = 0; g < Cell::GATES; ++g) {
        int64_t place = (to + here) * depth + (block * Cell::GATES + g) * LANES;
        store(chunk.of_state + place, of_state[g]);
        if (Cell::TWO_BIASES) store(chunk.of_x + place, of_x[g]);
      }
    }
  }
}

// sums[m][gate][LANES] += sum over k of a[k][m] * panel[k], for a (depth, columns) with rows `stride` apart.
template <class Cell>
void add_products(const float* a, int64_t stride, int64_t columns, int64_t depth, const float* panel, float* sums) {
  constexpr int V = Cell::GATES;
  each_tile<tile_rows(V)>(columns, [&](auto count, int64_t first) {
    constexpr int R = decltype(count)::value;
    vec tile[R][V];
    float* to = sums + first * V * LANES;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) tile[r][v] = load(to + (r * V + v) * LANES);
    }
    multiply<R, V, ALONG>(a + first, stride, depth, panel, tile);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(to + (r * V + v) * LANES, tile[r][v]);
    }
  });
}

// Copies the gate gradients of one block from all rows of a chunk into a panel, and adds them to the bias's gradient.
template <class Cell>
void take_panel(const float* gradients, int64_t stride, int64_t count, int64_t block, float* panel, float* bias) {
  constexpr int V = Cell::GATES;
  vec total[V] = {};
  for (int64_t k = 0; k < count; ++k) {
    for (int v = 0; v < V; ++v) {
      vec g = load(gradients + k * stride + (block * V + v) * LANES);
      total[v] += g;
      store(panel + (k * V + v) * LANES, g);
    }
  }
  for (int v = 0; v < V; ++v) store(bias + v * LANES, load(bias + v * LANES) + total[v]);
}

template <class Cell>
void run_group(const Backward& call, const Transposed& kernels, const Chunk& chunk, const Sums& sums, Range rows,
               int64_t steps_a_chunk) {
  const Sizes& s = call.sizes;
  int64_t count = rows.end - rows.begin, depth = depth_of<Cell>(s), stride = odd(depth);
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t b = 0; b < s.blocks(); ++b) {
      int64_t from = (rows.begin + row) * s.units + b * LANES, to = row * s.padded() + b * LANES;
      store(chunk.dh + to, call.d_h ? load(call.d_h + from, s.lanes(b)) : vec{});
      if (Cell::HAS_CELL) store(chunk.dc + to, call.d_c ? load(call.d_c + from, s.lanes(b)) : vec{});
    }
  }
  std::vector<float*> dx(call.dx ? steps_a_chunk * count : 0);
  for (int64_t end = s.steps; end > 0;) {
    int64_t begin = std::max<int64_t>(0, end - steps_a_chunk), filled = (end - begin) * count;
    for (int64_t step = end - 1; step >= begin; --step) {
      int64_t to = (step - begin) * count;
      step_back<Cell>(call, chunk, step, rows, to);
      product(chunk.of_state + to * stride, stride, count, kernels.of_state, kernels.state,
              [&](int64_t row, int64_t column, vec value, int) {
                float* dh = chunk.dh + row * s.padded() + column;
                store(dh, load(dh) + value);
              });
    }
    if (call.dx) {
      for (int64_t step = begin; step < end; ++step) {
        int64_t time = call.go_backwards ? s.steps - 1 - step : step;
        for (int64_t row = 0; row < count; ++row) {
          dx[(step - begin) * count + row] = call.dx + ((rows.begin + row) * s.steps + time) * s.features;
        }
      }
      product(chunk.of_x, stride, filled, kernels.of_x, kernels.x,
              [&](int64_t row, int64_t column, vec value, int lanes) { store(dx[row] + column, value, lanes); });
    }
    for (int64_t b = 0; b < s.blocks(); ++b) {
      constexpr int64_t width = Cell::GATES * LANES;
      float* bias = sums.bias + 2 * b * width;
      take_panel<Cell>(chunk.of_x, stride, filled, b, chunk.panel, bias);
      add_products<Cell>(chunk.x, odd(s.features), s.features, filled, chunk.panel, sums.kernel + b * s.features * width);
      if (Cell::TWO_BIASES) take_panel<Cell>(chunk.of_state, stride, filled, b, chunk.panel, bias + width);
      add_products<Cell>(chunk.before, odd(s.units), s.units, filled, chunk.panel, sums.recurrent + b * s.units * width);
    }
    end = begin;
  }
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(call.dh0 + (rows.begin + row) * s.units, chunk.dh + row * s.padded(), sizeof(float) * s.units);
    if (!Cell::HAS_CELL) continue;
    std::memcpy(call.dc0 + (rows.begin + row) * s.units, chunk.dc + row * s.padded(), sizeof(float) * s.units);
  }
}

// The kernel gradients of all threads, summed in their order and put in the places of the gates' columns.
inline void gather(const std::vector<Sums>& of_part, float* Sums::*which, int64_t offset, int64_t rows, int gates,
                   const Sizes& s, int64_t block, float* to) {
  int lanes = s.lanes(block);
  for (int64_t k = 0; k < rows; ++k) {
    for (int g = 0; g < gates; ++g) {
      int64_t place = offset + (k * gates + g) * LANES;
      vec total = load(of_part[0].*which + place);
      for (size_t part = 1; part < of_part.size(); ++part) total += load(of_part[part].*which + place);
      store(to + (k * gates + g) * s.units + block * LANES, total, lanes);
    }
  }
}

template <class Cell>
void run(ffi::ThreadPool& pool, const Backward& call) {
  const Sizes& s = call.sizes;
  constexpr int G = Cell::GATES;
  int64_t parts = std::max<int64_t>(1, s.parts(pool, G)), share = (s.batch + parts - 1) / parts;
  int64_t most = std::max<int64_t>(1, std::min(GROUP, share));
  int64_t steps = std::max<int64_t>(1, std::min(s.steps, CHUNK / most));
  auto place = [&](Pieces& pieces, std::vector<Sums>& sums, std::vector<Chunk>& chunks) {
    Transposed kernels = Transposed::of<Cell>(call, pieces);
    for (int64_t part = 0; part < parts; ++part) {
      sums.push_back(Sums::of<Cell>(s, pieces));
      chunks.push_back(Chunk::of<Cell>(s, most, most * steps, pieces));
    }
    return kernels;
  };
  std::vector<Sums> sums, no_sums;
  std::vector<Chunk> chunks, no_chunks;
  Pieces counted(nullptr);
  place(counted, no_sums, no_chunks);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  Transposed kernels = place(pieces, sums, chunks);
  parallel_for(pool, parts, [&](int64_t part) {
    Range blocks = range_of(s.blocks(), parts, part);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      if (call.dx) pack_transposed(call.kernel, s, G, b, kernels.of_x, kernels.x);
      pack_transposed(call.recurrent, s, G, b, kernels.of_state, kernels.state);
    }
  });
  parallel_for(pool, parts, [&](int64_t part) {
    Sums own = sums[part];
    int64_t depth = depth_of<Cell>(s);
    std::fill(own.kernel, own.kernel + s.features * depth, 0.0f);
    std::fill(own.recurrent, own.recurrent + s.units * depth, 0.0f);
    std::fill(own.bias, own.bias + 2 * depth, 0.0f);
    Range rows = range_of(s.batch, parts, part);
    int64_t count = rows.end - rows.begin, groups = (count + most - 1) / most;
    for (int64_t g = 0; g < groups; ++g) {
      Range some = range_of(count, groups, g);
      run_group<Cell>(call, kernels, chunks[part], own, {rows.begin + some.begin, rows.begin + some.end}, steps);
    }
  });
  parallel_for(pool, parts, [&](int64_t part) {
    Range blocks = range_of(s.blocks(), parts, part);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      int64_t width = G * LANES;
      gather(sums, &Sums::kernel, b * s.features * width, s.features, G, s, b, call.d_kernel);
      gather(sums, &Sums::recurrent, b * s.units * width, s.units, G, s, b, call.d_recurrent);
      if (call.d_bias) gather(sums, &Sums::bias, 2 * b * width, Cell::TWO_BIASES ? 2 : 1, G, s, b, call.d_bias);
    }
  });
}

using Any = ffi::AnyBuffer;
using AnyResult = ffi::Result<ffi::AnyBuffer>;

template <class Cell>
ffi::Error backward(ffi::ThreadPool pool, Any x, Any h0, Any c0, Any kernel, Any recurrent, Any mask, Any sequence,
                    Any gates, Any cells, Any d_sequence, Any d_h, Any d_c, AnyResult dx, AnyResult dh0, AnyResult dc0,
                    AnyResult d_kernel, AnyResult d_recurrent, AnyResult d_bias, bool go_backwards) {
  auto shape = x.dimensions();
  Backward call{{shape[0], shape[1], shape[2], h0.dimensions()[1]},
                given<float>(x),
                given<float>(h0),
                given<float>(c0),
                given<float>(kernel),
                given<float>(recurrent),
                given<bool>(mask),
                given<float>(sequence),
                given<float>(gates),
                given<float>(cells),
                given<float>(d_sequence),
                given<float>(d_h),
                given<float>(d_c),
                go_backwards,
                given<float>(dx),
                given<float>(dh0),
                given<float>(dc0),
                given<float>(d_kernel),
                given<float>(d_recurrent),
                given<float>(d_bias)};
  try {
    run<Cell>(pool, call);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

#define KERASOFT_BACKWARD(HANDLER, CELL)                                        \
  XLA_FFI_DEFINE_HANDLER(HANDLER, backward<CELL>,                               \
                         ffi::Ffi::Bind()                                       \
                             .Ctx<ffi::ThreadPool>()                            \
                             .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()       \
                             .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()       \
                             .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()       \
                             .Ret<Any>().Ret<Any>().Ret<Any>()                  \
                             .Ret<Any>().Ret<Any>().Ret<Any>()                  \
                             .Attr<bool>("go_backwards"))

KERASOFT_BACKWARD(LstmBackward, Lstm);
KERASOFT_BACKWARD(GruBackward, Gru);
KERASOFT_BACKWARD(SimpleBackward, Simple);

KERASOFT_TARGET("lstm_grad", LstmBackward);
KERASOFT_TARGET("gru_grad", GruBackward);
KERASOFT_TARGET("simple_rnn_grad", SimpleBackward);

}  // namespace
}  // namespace kerasoft
