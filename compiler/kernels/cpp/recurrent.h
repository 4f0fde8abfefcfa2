// What forward and backward passes of recurrent networks share: their arrays, how they are cut, and the cells' formulas.
//
// Shapes as in kerasoft.compiler.ops.recurrent: x (b, t, d), states (b, u), kernel (d, G u), recurrent kernel (u, G u),
// mask (b, t), sequence (b, t, u) in order of processing, gates (t, b, saved u), cells (t, b, u). An array of no elements
// is one that is not given or not wanted.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "tiles.h"
#include "workspace.h"

namespace kerasoft {

constexpr int64_t GROUP = 64;  // rows that one thread takes through all steps at once: their states stay in its cache

template <typename T>
T* given(ffi::AnyBuffer buffer) {
  return buffer.element_count() ? static_cast<T*>(buffer.untyped_data()) : nullptr;
}

template <typename T>
T* given(ffi::Result<ffi::AnyBuffer> buffer) {
  return given<T>(*buffer);
}

struct Sizes {
  int64_t batch, steps, features, units;

  int64_t blocks() const { return blocks_of(units); }
  int64_t padded() const { return blocks() * LANES; }
  int lanes(int64_t block) const { return int(std::min<int64_t>(LANES, units - block * LANES)); }

  // Into how many parts the batch is cut: one a thread, but a short computation is not worth waking threads.
  int64_t parts(ffi::ThreadPool& pool, int gates) const {
    double work = 2.0 * batch * steps * (features + units) * gates * units;
    return work < 4e5 ? 1 : std::min(batch, thread_count(pool));
  }
};

// Bump allocation of 64-byte aligned pieces; with no memory behind it, it counts.
class Pieces {
 public:
  explicit Pieces(float* memory) : next_(memory) {}
  float* take(int64_t floats) {
    int64_t rounded = (floats + 15) / 16 * 16;
    float* piece = next_;
    if (next_) next_ += rounded;
    used_ += rounded;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  float* next_;
  int64_t used_ = 0;
};

// A cell: GATES column blocks in its kernels, SLOTS sums in registers; the last gate of the recurrent product goes to
// sum LAST_OF_STATE, the one of the input's product to sum GATES - 1.
struct Lstm {
  static constexpr int GATES = 4, SLOTS = 4, LAST_OF_STATE = 3, SAVED = 4;
  static constexpr bool HAS_CELL = true, TWO_BIASES = false;
};

struct Gru {  // sums: z, r, the candidate's input part, the candidate's state part
  static constexpr int GATES = 3, SLOTS = 4, LAST_OF_STATE = 3, SAVED = 4;
  static constexpr bool HAS_CELL = false, TWO_BIASES = true;
};

struct Simple {
  static constexpr int GATES = 1, SLOTS = 1, LAST_OF_STATE = 0, SAVED = 0;
  static constexpr bool HAS_CELL = false, TWO_BIASES = false;
};

// One row and block of units, one step on: from sums to the new state; `saved` gets the gates.
KERASOFT_INLINE vec step_of(Lstm, const vec* sums, vec, vec& cell, vec* saved) {
  saved[0] = sigmoid(sums[0]);
  saved[1] = sigmoid(sums[1]);
  saved[2] = tanh_of(sums[2]);
  saved[3] = sigmoid(sums[3]);
  cell = saved[1] * cell + saved[0] * saved[2];
  return saved[3] * tanh_of(cell);
}

KERASOFT_INLINE vec step_of(Gru, const vec* sums, vec state, vec&, vec* saved) {
  saved[0] = sigmoid(sums[0]);
  saved[1] = sigmoid(sums[1]);
  saved[3] = sums[3];
  saved[2] = tanh_of(sums[2] + saved[1] * sums[3]);
  return saved[0] * state + (1.0f - saved[0]) * saved[2];
}

KERASOFT_INLINE vec step_of(Simple, const vec* sums, vec, vec&, vec*) { return tanh_of(sums[0]); }

// Gradients of one row's and block's sums: d is that of the new state; dc is that of the cell and becomes the one of the
// cell before; `direct` what reaches the state before without the recurrent kernel.
KERASOFT_INLINE void gradients(Lstm, vec d, vec& dc, vec& direct, const vec* saved, vec, vec cell_before, vec, vec* of_state,
                               vec*) {
  vec i = saved[0], f = saved[1], g = saved[2], o = saved[3];
  vec t = tanh_of(f * cell_before + i * g);
  vec e = dc + d * o * (1.0f - t * t);
  of_state[0] = e * g * i * (1.0f - i);
  of_state[1] = e * cell_before * f * (1.0f - f);
  of_state[2] = e * i * (1.0f - g * g);
  of_state[3] = d * t * o * (1.0f - o);
  dc = e * f;
  direct = vec{};
}

KERASOFT_INLINE void gradients(Gru, vec d, vec&, vec& direct, const vec* saved, vec before, vec, vec, vec* of_state,
                               vec* of_x) {
  vec z = saved[0], r = saved[1], made = saved[2], inner = saved[3];
  vec d_made = d * (1.0f - z) * (1.0f - made * made);
  of_state[0] = of_x[0] = d * (before - made) * z * (1.0f - z);
  of_state[1] = of_x[1] = d_made * inner * r * (1.0f - r);
  of_state[2] = d_made * r;
  of_x[2] = d_made;
  direct = d * z;
}

KERASOFT_INLINE void gradients(Simple, vec d, vec&, vec& direct, const vec*, vec, vec, vec after, vec* of_state, vec*) {
  of_state[0] = d * (1.0f - after * after);
  direct = vec{};
}

}  // namespace kerasoft
