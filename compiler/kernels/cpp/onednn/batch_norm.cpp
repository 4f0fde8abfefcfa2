// Batch normalisation over all rows by oneDNN, and its gradient: float32, channels last.
//
// A channel's sums need all rows, so the batch is not cut: one primitive with OpenMP's threads, one call at a time.
#include <cstring>

#include "../registry.h"
#include "engine.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

struct Norm {
  dnnl::primitive primitive;
  memory::desc x, channel, scratch;
};

std::shared_ptr<Norm> of(bool backward, int64_t rows, int64_t channels, float epsilon, int threads) {
  static auto* known = new Cache<Norm>();
  int32_t bits;
  std::memcpy(&bits, &epsilon, sizeof bits);
  return known->get({backward, rows, channels, bits, threads}, [&] {
    auto made = std::make_shared<Norm>();
    made->x = memory::desc({1, channels, rows, 1}, Type::f32, Tag::nhwc);
    made->channel = memory::desc({channels}, Type::f32, Tag::x);
    dnnl::primitive_attr user;
    user.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto flags = dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift;
    dnnl::batch_normalization_forward::primitive_desc ahead(engine(), dnnl::prop_kind::forward_training, made->x, made->x,
                                                            epsilon, flags, user);
    if (!backward) {
      made->primitive = dnnl::batch_normalization_forward(ahead);
      made->scratch = ahead.scratchpad_desc();
      return made;
    }
    dnnl::batch_normalization_backward::primitive_desc back(engine(), dnnl::prop_kind::backward, made->x, made->x, made->x,
                                                            epsilon, flags, ahead, user);
    made->primitive = dnnl::batch_normalization_backward(back);
    made->scratch = back.scratchpad_desc();
    return made;
  });
}

template <typename Arguments>
ffi::Error compute(ffi::ThreadPool& pool, bool backward, const Floats& x, float epsilon, const Arguments& arguments) {
  return guarded([&] {
    const int64_t channels = x.dimensions().back(), rows = x.element_count() / channels;
    const int threads = int(thread_count(pool));
    std::lock_guard<std::mutex> lock(alone());
    Threads all(threads);
    const auto made = of(backward, rows, channels, epsilon, threads);
    Workspace scratch(made->scratch.get_size());
    auto given = arguments(*made);
    given.emplace(DNNL_ARG_SCRATCHPAD, at(made->scratch, scratch.data()));
    run(made->primitive, given);
  });
}

ffi::Error Forward(ffi::ThreadPool pool, float epsilon, Floats x, Floats gamma, Floats beta, Result y, Result mean,
                   Result variance) {
  return compute(pool, false, x, epsilon, [&](const Norm& n) {
    return std::unordered_map<int, memory>{{DNNL_ARG_SRC, at(n.x, x.typed_data())},
                                           {DNNL_ARG_SCALE, at(n.channel, gamma.typed_data())},
                                           {DNNL_ARG_SHIFT, at(n.channel, beta.typed_data())},
                                           {DNNL_ARG_DST, at(n.x, y->typed_data())},
                                           {DNNL_ARG_MEAN, at(n.channel, mean->typed_data())},
                                           {DNNL_ARG_VARIANCE, at(n.channel, variance->typed_data())}};
  });
}

ffi::Error Backward(ffi::ThreadPool pool, float epsilon, Floats x, Floats dy, Floats gamma, Floats mean, Floats variance,
                    Result dx, Result dgamma, Result dbeta) {
  return compute(pool, true, x, epsilon, [&](const Norm& n) {
    return std::unordered_map<int, memory>{{DNNL_ARG_SRC, at(n.x, x.typed_data())},
                                           {DNNL_ARG_DIFF_DST, at(n.x, dy.typed_data())},
                                           {DNNL_ARG_SCALE, at(n.channel, gamma.typed_data())},
                                           {DNNL_ARG_MEAN, at(n.channel, mean.typed_data())},
                                           {DNNL_ARG_VARIANCE, at(n.channel, variance.typed_data())},
                                           {DNNL_ARG_DIFF_SRC, at(n.x, dx->typed_data())},
                                           {DNNL_ARG_DIFF_SCALE, at(n.channel, dgamma->typed_data())},
                                           {DNNL_ARG_DIFF_SHIFT, at(n.channel, dbeta->typed_data())}};
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(OnednnBatchNorm, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("epsilon")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(OnednnBatchNormGrad, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("epsilon")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

KERASOFT_TARGET("onednn_batch_norm", OnednnBatchNorm);
KERASOFT_TARGET("onednn_batch_norm_grad", OnednnBatchNormGrad);

}  // namespace kerasoft
