// LSTM and GRU (reset after the product) by oneDNN, forward and backward: float32, no masks.
//
// The batch is cut among XLA's threads, each of which runs a primitive made for one thread on its rows. Keras's order of
// gates is oneDNN's. What oneDNN keeps of the forward pass for the gradient is its own secret and lives no longer than a
// call, so the backward call computes the forward pass again.
#include <cstring>

#include "../registry.h"
#include "engine.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

struct Net {
  bool is_lstm, has_bias;
  int64_t rows, steps, size, units;

  int64_t gates() const { return is_lstm ? 4 : 3; }
  int64_t biases() const { return 4 * units; }  // GRU's last gate has two
  memory::desc sequence(int64_t n) const { return memory::desc({steps, rows, n}, Type::f32, Dims{n, steps * n, 1}); }
  memory::desc state() const { return memory::desc({1, 1, rows, units}, Type::f32, Tag::ldnc); }
  memory::desc matrix(int64_t n, Tag tag) const { return memory::desc({1, 1, n, gates(), units}, Type::f32, tag); }
  memory::desc bias() const { return memory::desc({1, 1, 4, units}, Type::f32, Tag::ldgo); }  // always there; may be zeros
};

struct Made {
  dnnl::primitive forward, backward;
  memory::desc kernel, recurrent;            // as the forward pass wants them
  memory::desc back_kernel, back_recurrent;  // as the backward pass does
  memory::desc d_kernel, d_recurrent, scratch, back_scratch, kept;
};

template <typename Forward, typename Backward>
void finish(Made& made, const Forward& ahead, const Backward* back) {
  made.kernel = ahead.weights_layer_desc(), made.recurrent = ahead.weights_iter_desc();
  made.scratch = ahead.scratchpad_desc();
  if (!back) return;
  made.kept = ahead.workspace_desc(), made.back_scratch = back->scratchpad_desc();
  made.back_kernel = back->weights_layer_desc(), made.back_recurrent = back->weights_iter_desc();
  made.d_kernel = back->diff_weights_layer_desc(), made.d_recurrent = back->diff_weights_iter_desc();
}

std::shared_ptr<Made> make(const Net& n, bool training) {
  Threads one(1);
  dnnl::primitive_attr user;
  user.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto kind = training ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
  const auto back_kind = dnnl::prop_kind::backward;
  const auto way = dnnl::rnn_direction::unidirectional_left2right;
  const memory::desc x = n.sequence(n.size), y = n.sequence(n.units), h = n.state(), b = n.bias();
  const memory::desc k = n.matrix(n.size, Tag::any), r = n.matrix(n.units, Tag::any);
  auto made = std::make_shared<Made>();
  if (n.is_lstm) {
    dnnl::lstm_forward::primitive_desc ahead(engine(), kind, way, x, h, h, k, r, b, y, h, h, user);
    made->forward = dnnl::lstm_forward(ahead);
    if (!training) return finish(*made, ahead, static_cast<dnnl::lstm_backward::primitive_desc*>(nullptr)), made;
    dnnl::lstm_backward::primitive_desc back(engine(), back_kind, way, x, h, h, k, r, b, y, h, h, x, h, h, k, r, b, y, h, h,
                                             ahead, user);
    made->backward = dnnl::lstm_backward(back);
    finish(*made, ahead, &back);
  } else {
    dnnl::lbr_gru_forward::primitive_desc ahead(engine(), kind, way, x, h, k, r, b, y, h, user);
    made->forward = dnnl::lbr_gru_forward(ahead);
    if (!training) return finish(*made, ahead, static_cast<dnnl::lbr_gru_backward::primitive_desc*>(nullptr)), made;
    dnnl::lbr_gru_backward::primitive_desc back(engine(), back_kind, way, x, h, k, r, b, y, h, x, h, k, r, b, y, h, ahead,
                                                user);
    made->backward = dnnl::lbr_gru_backward(back);
    finish(*made, ahead, &back);
  }
  return made;
}

std::shared_ptr<Made> of(const Net& n, bool training) {
  static auto* known = new Cache<Made>();
  return known->get({n.is_lstm, n.has_bias, n.rows, n.steps, n.size, n.units, training}, [&] { return make(n, training); });
}

// Sizes, and the batch cut into parts whose primitives want the kernels in the same order.
struct Plan {
  Net net;
  int64_t batch;
  std::vector<Net> nets;
  std::vector<std::shared_ptr<Made>> made;

  Plan(ffi::ThreadPool& pool, bool is_lstm, bool training, const Floats& x, const Floats& recurrent, bool has_bias) {
    const auto dims = x.dimensions();
    batch = dims[0];
    net = {is_lstm, has_bias, batch, dims[1], dims[2], recurrent.dimensions()[0]};
    if (!cut(std::min(batch, thread_count(pool)), training)) cut(1, training);
  }
  int64_t parts() const { return made.size(); }
  Range rows(int64_t part) const { return range_of(batch, parts(), part); }
  const Made& first() const { return *made.front(); }

 private:
  bool cut(int64_t parts, bool training) {
    nets.assign(parts, net), made.clear();
    for (int64_t part = 0; part < parts; ++part) {
      Range r = range_of(batch, parts, part);
      nets[part].rows = r.end - r.begin;
      made.push_back(of(nets[part], training));
      const Made &a = *made.front(), &b = *made.back();
      if (a.kernel != b.kernel || a.recurrent != b.recurrent || a.back_kernel != b.back_kernel ||
          a.back_recurrent != b.back_recurrent || a.d_kernel != b.d_kernel || a.d_recurrent != b.d_recurrent)
        return false;
    }
    return true;
  }
};

// Pieces of scratch memory, one after the other.
class Pieces {
 public:
  size_t add(size_t bytes) { return (total_ += aligned(bytes)) - aligned(bytes); }
  size_t total() const { return total_; }

 private:
  size_t total_ = 0;
};

// Keras's kernel (n, gates * units) in the order that `wanted` has.
void order(const Net& n, int64_t rows, const float* kernel, const memory::desc& wanted, void* to) {
  Threads one(1);
  memory from = at(n.matrix(rows, Tag::ldigo), kernel), target = at(wanted, to);
  run(dnnl::reorder(from, target), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, target}});
}

// The bias as oneDNN has it: zeros for none; of GRU's (2, 3 units) the sums of the first two gates, the last one's outer
// and inner bias.
void order_biases(const Net& n, const float* bias, float* to) {
  const int64_t u = n.units;
  if (!bias) {
    std::memset(to, 0, 4 * u * sizeof(float));
    return;
  }
  if (n.is_lstm) {
    std::memcpy(to, bias, 4 * u * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < 2 * u; ++i) to[i] = bias[i] + bias[3 * u + i];
  std::memcpy(to + 2 * u, bias + 2 * u, u * sizeof(float));
  std::memcpy(to + 3 * u, bias + 5 * u, u * sizeof(float));
}

struct Inputs {
  const float *x, *h, *c, *kernel, *recurrent, *bias;
};

std::unordered_map<int, memory> forward_arguments(const Net& n, const Made& made, Range r, const Inputs& in, const void* kernel,
                                                  const void* recurrent, float* sequence, float* h, float* c,
                                                  void* scratch) {
  std::unordered_map<int, memory> all = {
      {DNNL_ARG_SRC_LAYER, at(n.sequence(n.size), in.x + r.begin * n.steps * n.size)},
      {DNNL_ARG_SRC_ITER, at(n.state(), in.h + r.begin * n.units)},
      {DNNL_ARG_WEIGHTS_LAYER, at(made.kernel, kernel)},
      {DNNL_ARG_WEIGHTS_ITER, at(made.recurrent, recurrent)},
      {DNNL_ARG_DST_LAYER, at(n.sequence(n.units), sequence + r.begin * n.steps * n.units)},
      {DNNL_ARG_DST_ITER, at(n.state(), h + r.begin * n.units)},
      {DNNL_ARG_SCRATCHPAD, at(made.scratch, scratch)}};
  all.emplace(DNNL_ARG_BIAS, at(n.bias(), in.bias));
  if (n.is_lstm) {
    all.emplace(DNNL_ARG_SRC_ITER_C, at(n.state(), in.c + r.begin * n.units));
    all.emplace(DNNL_ARG_DST_ITER_C, at(n.state(), c + r.begin * n.units));
  }
  return all;
}

size_t most(const Plan& plan, memory::desc Made::*piece) {
  size_t bytes = 0;
  for (auto& one : plan.made) bytes = std::max(bytes, aligned(((*one).*piece).get_size()));
  return bytes;
}

const float* or_null(const Floats& x) { return x.element_count() ? x.typed_data() : nullptr; }

// x (b, t, d), h (b, u), c (b, u) or (0), kernels[, bias or (0)] -> sequence (b, t, u), h, c or (0)
ffi::Error Forward(ffi::ThreadPool pool, bool is_lstm, Floats x, Floats h0, Floats c0, Floats kernel, Floats recurrent,
                   Floats bias, Result sequence, Result h, Result c) {
  return guarded([&] {
    Plan plan(pool, is_lstm, false, x, recurrent, bias.element_count() > 0);
    const Net& n = plan.net;
    Pieces pieces;
    const size_t at_kernel = pieces.add(plan.first().kernel.get_size());
    const size_t at_recurrent = pieces.add(plan.first().recurrent.get_size());
    const size_t at_bias = pieces.add(n.biases() * sizeof(float));
    const size_t scratch = most(plan, &Made::scratch), at_scratch = pieces.add(scratch * plan.parts());
    Workspace space(pieces.total());
    char* base = static_cast<char*>(space.data());
    order(n, n.size, kernel.typed_data(), plan.first().kernel, base + at_kernel);
    order(n, n.units, recurrent.typed_data(), plan.first().recurrent, base + at_recurrent);
    Inputs in{x.typed_data(), h0.typed_data(), c0.typed_data(), nullptr, nullptr, or_null(bias)};
    order_biases(n, in.bias, reinterpret_cast<float*>(base + at_bias));
    in.bias = reinterpret_cast<float*>(base + at_bias);
    parallel_for(pool, plan.parts(), [&](int64_t part) {
      Threads one(1);
      const Made& made = *plan.made[part];
      run(made.forward, forward_arguments(plan.nets[part], made, plan.rows(part), in, base + at_kernel, base + at_recurrent,
                                          sequence->typed_data(), h->typed_data(), c->typed_data(),
                                          base + at_scratch + part * scratch));
    });
  });
}

// The forward pass's inputs and the gradients of sequence, h and c (each may be (0): none) -> gradients of x, h, c, the
// kernels and the bias.
ffi::Error Backward(ffi::ThreadPool pool, bool is_lstm, Floats x, Floats h0, Floats c0, Floats kernel, Floats recurrent,
                    Floats bias, Floats d_sequence, Floats dh, Floats dc, Result dx, Result dh0, Result dc0,
                    Result d_kernel, Result d_recurrent, Result d_bias) {
  return guarded([&] {
    Plan plan(pool, is_lstm, true, x, recurrent, bias.element_count() > 0);
    const Net& n = plan.net;
    const Made& first = plan.first();
    const int64_t parts = plan.parts(), cells = n.rows * n.units;
    Pieces pieces;
    const size_t at_kernel = pieces.add(first.kernel.get_size()), at_recurrent = pieces.add(first.recurrent.get_size());
    const size_t at_back_kernel = pieces.add(first.back_kernel.get_size());
    const size_t at_back_recurrent = pieces.add(first.back_recurrent.get_size());
    const size_t at_bias = pieces.add(n.biases() * sizeof(float));
    const size_t at_sequence = pieces.add(cells * n.steps * sizeof(float));
    const size_t at_zeros = pieces.add(cells * n.steps * sizeof(float));
    const size_t at_h = pieces.add(cells * sizeof(float)), at_c = pieces.add(cells * sizeof(float));
    const size_t scratch = std::max(most(plan, &Made::scratch), most(plan, &Made::back_scratch));
    const size_t at_scratch = pieces.add(scratch * parts), kept = most(plan, &Made::kept);
    const size_t at_kept = pieces.add(kept * parts);
    Pieces sums;  // of one part
    const size_t of_kernel = sums.add(first.d_kernel.get_size()), of_recurrent = sums.add(first.d_recurrent.get_size());
    const size_t of_bias = sums.add(n.biases() * sizeof(float)), at_sums = pieces.add(sums.total() * parts);
    Workspace space(pieces.total());
    char* base = static_cast<char*>(space.data());
    const auto floats = [&](size_t offset) { return reinterpret_cast<float*>(base + offset); };
    order(n, n.size, kernel.typed_data(), first.kernel, base + at_kernel);
    order(n, n.units, recurrent.typed_data(), first.recurrent, base + at_recurrent);
    order(n, n.size, kernel.typed_data(), first.back_kernel, base + at_back_kernel);
    order(n, n.units, recurrent.typed_data(), first.back_recurrent, base + at_back_recurrent);
    const bool all_given = or_null(d_sequence) && or_null(dh) && (or_null(dc) || !is_lstm);
    if (!all_given) std::memset(base + at_zeros, 0, cells * n.steps * sizeof(float));
    const auto given = [&](const Floats& d) { return or_null(d) ? d.typed_data() : floats(at_zeros); };
    Inputs in{x.typed_data(), h0.typed_data(), c0.typed_data(), nullptr, nullptr, or_null(bias)};
    order_biases(n, in.bias, floats(at_bias));
    in.bias = floats(at_bias);
    const bool wants_dx = dx->element_count() > 0;
    Workspace spare(wants_dx ? 0 : x.size_bytes());
    float* to_x = wants_dx ? dx->typed_data() : spare.floats();
    parallel_for(pool, parts, [&](int64_t part) {
      Threads one(1);
      const Made& made = *plan.made[part];
      const Net& mine = plan.nets[part];
      const Range r = plan.rows(part);
      const int64_t row = r.begin * n.units;
      char* sum = base + at_sums + part * sums.total();
      std::memset(sum, 0, sums.total());
      auto all = forward_arguments(mine, made, r, in, base + at_kernel, base + at_recurrent, floats(at_sequence), floats(at_h),
                                   floats(at_c), base + at_scratch + part * scratch);
      const memory secret = at(made.kept, base + at_kept + part * kept);
      all.emplace(DNNL_ARG_WORKSPACE, secret);
      run(made.forward, all);
      all[DNNL_ARG_WEIGHTS_LAYER] = at(made.back_kernel, base + at_back_kernel);
      all[DNNL_ARG_WEIGHTS_ITER] = at(made.back_recurrent, base + at_back_recurrent);
      all[DNNL_ARG_SCRATCHPAD] = at(made.back_scratch, base + at_scratch + part * scratch);
      all.emplace(DNNL_ARG_DIFF_SRC_LAYER, at(mine.sequence(n.size), to_x + r.begin * n.steps * n.size));
      all.emplace(DNNL_ARG_DIFF_SRC_ITER, at(mine.state(), dh0->typed_data() + row));
      all.emplace(DNNL_ARG_DIFF_WEIGHTS_LAYER, at(made.d_kernel, sum + of_kernel));
      all.emplace(DNNL_ARG_DIFF_WEIGHTS_ITER, at(made.d_recurrent, sum + of_recurrent));
      all.emplace(DNNL_ARG_DIFF_BIAS, at(mine.bias(), sum + of_bias));
      all.emplace(DNNL_ARG_DIFF_DST_LAYER, at(mine.sequence(n.units), given(d_sequence) + row * n.steps));
      all.emplace(DNNL_ARG_DIFF_DST_ITER, at(mine.state(), given(dh) + row));
      if (is_lstm) {
        all.emplace(DNNL_ARG_DIFF_SRC_ITER_C, at(mine.state(), dc0->typed_data() + row));
        all.emplace(DNNL_ARG_DIFF_DST_ITER_C, at(mine.state(), given(dc) + row));
      }
      run(made.backward, all);
    });
    add_up(pool, base + at_sums, parts, sums.total(), sums.total() / sizeof(float));
    const auto give = [&](int64_t rows, const memory::desc& from, size_t offset, float* to) {
      memory source = at(from, base + at_sums + offset), target = at(n.matrix(rows, Tag::ldigo), to);
      run(dnnl::reorder(source, target), {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}});
    };
    Threads one(1);
    give(n.size, first.d_kernel, of_kernel, d_kernel->typed_data());
    give(n.units, first.d_recurrent, of_recurrent, d_recurrent->typed_data());
    if (!n.has_bias) return;
    const int64_t u = n.units;
    const float* sum = floats(at_sums + of_bias);
    float* to = d_bias->typed_data();
    if (is_lstm) {
      std::memcpy(to, sum, 4 * u * sizeof(float));
    } else {
      for (float* half : {to, to + 3 * u}) std::memcpy(half, sum, 2 * u * sizeof(float));
      std::memcpy(to + 2 * u, sum + 2 * u, u * sizeof(float));
      std::memcpy(to + 5 * u, sum + 3 * u, u * sizeof(float));
    }
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(OnednnRecurrent, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("is_lstm")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(OnednnRecurrentGrad, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("is_lstm")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

KERASOFT_TARGET("onednn_recurrent", OnednnRecurrent);
KERASOFT_TARGET("onednn_recurrent_grad", OnednnRecurrentGrad);

}  // namespace kerasoft
