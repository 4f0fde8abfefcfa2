// LSTM, GRU (reset after) and tanh RNN forward: all steps of all rows in one call.
//
// The batch is cut among the threads, and a thread takes its rows through all steps without waiting for others. Gates are
// computed where their sums are, in registers: a tile holds all gates of LANES units of a few rows. Kernels are packed
// once a call and stay in the thread's cache.
#include "recurrent.h"
#include "registry.h"

namespace kerasoft {
namespace {

struct Forward {
  Sizes sizes;
  const float *x, *h0, *c0, *kernel, *recurrent, *bias;
  const bool* mask;
  bool go_backwards;
  float *sequence, *h, *c, *cells, *gates;
};

struct Packed {
  float *kernel, *recurrent, *bias;

  template <class Cell>
  static Packed of(const Sizes& s, Pieces& pieces) {
    int64_t columns = s.padded() * Cell::GATES;
    return {pieces.take(s.features * columns), pieces.take(s.units * columns), pieces.take(s.padded() * Cell::SLOTS)};
  }
};

template <class Cell>
void pack(const Forward& call, const Packed& to, int64_t block) {
  const Sizes& s = call.sizes;
  int64_t panel = Cell::GATES * LANES;
  pack_gates(call.kernel, s.features, Cell::GATES, s.units, block, to.kernel + block * s.features * panel);
  pack_gates(call.recurrent, s.units, Cell::GATES, s.units, block, to.recurrent + block * s.units * panel);
  float* bias = to.bias + block * Cell::SLOTS * LANES;
  std::fill(bias, bias + Cell::SLOTS * LANES, 0.0f);
  if (!call.bias) return;
  const float* from = call.bias + block * LANES;
  int lanes = s.lanes(block);
  for (int g = 0; g < Cell::GATES; ++g) store(bias + g * LANES, load(from + g * s.units, lanes));
  if (!Cell::TWO_BIASES) return;
  from += Cell::GATES * s.units;  // the state's biases
  for (int g = 0; g < Cell::GATES; ++g) {
    float* slot = bias + (g == Cell::GATES - 1 ? Cell::LAST_OF_STATE : g) * LANES;
    store(slot, load(slot) + load(from + g * s.units, lanes));
  }
}

struct Group {  // what a thread keeps of the rows that it works on
  float *x, *states[2], *cells;

  static Group of(const Sizes& s, int64_t rows, bool has_cell, Pieces& pieces) {
    return {pieces.take(rows * s.features),
            {pieces.take(rows * s.units), pieces.take(rows * s.units)},
            pieces.take(has_cell ? rows * s.padded() : 0)};
  }
};

template <class Cell, int R>
KERASOFT_INLINE void tile(const Forward& call, const Packed& packed, const Group& group, int64_t step, int64_t first,
                          int64_t row, int64_t block) {
  const Sizes& s = call.sizes;
  const float* before = group.states[step % 2];
  float* after = group.states[1 - step % 2];
  int64_t unit = block * LANES, time = call.go_backwards ? s.steps - 1 - step : step, panel = Cell::GATES * LANES;
  int lanes = s.lanes(block);
  bool valid[R], some = false;
  for (int r = 0; r < R; ++r) {
    valid[r] = !call.mask || call.mask[(first + row + r) * s.steps + time];
    some = some || valid[r];
  }
  vec sums[R][Cell::SLOTS];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Cell::SLOTS; ++v) sums[r][v] = load(packed.bias + (block * Cell::SLOTS + v) * LANES);
  }
  if (some) {
    multiply<R, Cell::GATES, ACROSS, Cell::SLOTS>(group.x + row * s.features, s.features, s.features,
                                                  packed.kernel + block * s.features * panel, sums);
    multiply<R, Cell::GATES, ACROSS, Cell::SLOTS, Cell::LAST_OF_STATE>(
        before + row * s.units, s.units, s.units, packed.recurrent + block * s.units * panel, sums);
  }
  for (int r = 0; r < R; ++r) {
    int64_t here = row + r, there = first + here;
    vec state = load(before + here * s.units + unit, lanes);
    vec cell = Cell::HAS_CELL ? load(group.cells + here * s.padded() + unit) : vec{};
    vec saved[Cell::SAVED + 1] = {};
    if (valid[r]) state = step_of(Cell(), sums[r], state, cell, saved);
    store(after + here * s.units + unit, state, lanes);
    if (Cell::HAS_CELL) store(group.cells + here * s.padded() + unit, cell);
    if (call.sequence) store(call.sequence + (there * s.steps + step) * s.units + unit, state, lanes);
    if (Cell::HAS_CELL && call.cells) store(call.cells + (step * s.batch + there) * s.units + unit, cell, lanes);
    if (Cell::SAVED && call.gates) {
      float* gates = call.gates + (step * s.batch + there) * Cell::SAVED * s.units + unit;
      for (int g = 0; g < Cell::SAVED; ++g) store(gates + g * s.units, saved[g], lanes);
    }
  }
}

template <class Cell>
void run_group(const Forward& call, const Packed& packed, const Group& group, Range rows) {
  const Sizes& s = call.sizes;
  int64_t count = rows.end - rows.begin;
  std::memcpy(group.states[0], call.h0 + rows.begin * s.units, sizeof(float) * count * s.units);
  if (Cell::HAS_CELL) {
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t b = 0; b < s.blocks(); ++b) {
        const float* from = call.c0 + (rows.begin + row) * s.units + b * LANES;
        store(group.cells + row * s.padded() + b * LANES, load(from, s.lanes(b)));
      }
    }
  }
  for (int64_t step = 0; step < s.steps; ++step) {
    int64_t time = call.go_backwards ? s.steps - 1 - step : step;
    for (int64_t row = 0; row < count; ++row) {
      const float* from = call.x + ((rows.begin + row) * s.steps + time) * s.features;
      std::memcpy(group.x + row * s.features, from, sizeof(float) * s.features);
    }
    for (int64_t block = 0; block < s.blocks(); ++block) {
      each_tile<tile_rows(Cell::SLOTS)>(count, [&](auto r, int64_t row) {
        tile<Cell, decltype(r)::value>(call, packed, group, step, rows.begin, row, block);
      });
    }
  }
  std::memcpy(call.h + rows.begin * s.units, group.states[s.steps % 2], sizeof(float) * count * s.units);
  if (!Cell::HAS_CELL) return;
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(call.c + (rows.begin + row) * s.units, group.cells + row * s.padded(), sizeof(float) * s.units);
  }
}

template <class Cell>
void run(ffi::ThreadPool& pool, const Forward& call) {
  const Sizes& s = call.sizes;
  if (s.batch == 0 || s.units == 0) return;
  int64_t parts = s.parts(pool, Cell::GATES), most = std::min(GROUP, (s.batch + parts - 1) / parts);
  Pieces counted(nullptr);
  Packed::of<Cell>(s, counted);
  for (int64_t part = 0; part < parts; ++part) Group::of(s, most, Cell::HAS_CELL, counted);
  Workspace workspace(sizeof(float) * counted.used());
  Pieces pieces(workspace.floats());
  Packed packed = Packed::of<Cell>(s, pieces);
  std::vector<Group> of_part;
  for (int64_t part = 0; part < parts; ++part) of_part.push_back(Group::of(s, most, Cell::HAS_CELL, pieces));
  parallel_for(pool, parts, [&](int64_t part) {
    Range blocks = range_of(s.blocks(), parts, part);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) pack<Cell>(call, packed, b);
  });
  parallel_for(pool, parts, [&](int64_t part) {
    Range rows = range_of(s.batch, parts, part);
    int64_t count = rows.end - rows.begin, groups = (count + most - 1) / most;
    for (int64_t g = 0; g < groups; ++g) {
      Range some = range_of(count, groups, g);
      run_group<Cell>(call, packed, of_part[part], {rows.begin + some.begin, rows.begin + some.end});
    }
  });
}

using Any = ffi::AnyBuffer;
using AnyResult = ffi::Result<ffi::AnyBuffer>;

template <class Cell>
ffi::Error forward(ffi::ThreadPool pool, Any x, Any h0, Any c0, Any kernel, Any recurrent, Any bias, Any mask,
                   AnyResult sequence, AnyResult h, AnyResult c, AnyResult cells, AnyResult gates, bool go_backwards) {
  auto shape = x.dimensions();
  Forward call{{shape[0], shape[1], shape[2], h0.dimensions()[1]},
               given<float>(x),
               given<float>(h0),
               given<float>(c0),
               given<float>(kernel),
               given<float>(recurrent),
               given<float>(bias),
               given<bool>(mask),
               go_backwards,
               given<float>(sequence),
               given<float>(h),
               given<float>(c),
               given<float>(cells),
               given<float>(gates)};
  try {
    run<Cell>(pool, call);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

#define KERASOFT_FORWARD(HANDLER, CELL)                                         \
  XLA_FFI_DEFINE_HANDLER(HANDLER, forward<CELL>,                                \
                         ffi::Ffi::Bind()                                       \
                             .Ctx<ffi::ThreadPool>()                            \
                             .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()       \
                             .Arg<Any>().Arg<Any>().Arg<Any>()                  \
                             .Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>().Ret<Any>() \
                             .Attr<bool>("go_backwards"))

KERASOFT_FORWARD(LstmForward, Lstm);
KERASOFT_FORWARD(GruForward, Gru);
KERASOFT_FORWARD(SimpleForward, Simple);

KERASOFT_TARGET("lstm", LstmForward);
KERASOFT_TARGET("gru", GruForward);
KERASOFT_TARGET("simple_rnn", SimpleForward);

}  // namespace
}  // namespace kerasoft
