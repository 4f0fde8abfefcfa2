// Maximum and mean over windows by oneDNN, and their gradients: float32, channels last.
//
// The batch is cut among XLA's threads. The gradient of a maximum computes the maximum again: where it was is kept in a form
// of oneDNN's own, which lives no longer than a call.
#include "../registry.h"
#include "engine.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;
using Spec = ffi::Span<const int64_t>;

struct Pool {
  dnnl::primitive forward, backward;
  memory::desc x, y, kept, scratch, back_scratch;
};

// spec: as Window in ../pooling.cpp
std::shared_ptr<Pool> make(const std::vector<int64_t>& key) {
  const int64_t *spec = key.data(), rows = spec[0], channels = spec[3];
  const bool largest = key[12], training = key[13];
  Threads one(1);
  auto made = std::make_shared<Pool>();
  const Dims window = {spec[6], spec[7]}, strides = {spec[8], spec[9]}, before = {spec[10], spec[11]}, none = {0, 0};
  Dims after(2);
  for (int i = 0; i < 2; ++i) after[i] = (spec[4 + i] - 1) * strides[i] + window[i] - spec[1 + i] - before[i];
  made->x = memory::desc({rows, channels, spec[1], spec[2]}, Type::f32, Tag::nhwc);
  made->y = memory::desc({rows, channels, spec[4], spec[5]}, Type::f32, Tag::nhwc);
  dnnl::primitive_attr user;
  user.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto how = largest ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_exclude_padding;
  const auto kind = training ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
  dnnl::pooling_forward::primitive_desc ahead(engine(), kind, how, made->x, made->y, strides, window, none, before, after,
                                              user);
  made->forward = dnnl::pooling_forward(ahead);
  made->scratch = ahead.scratchpad_desc();
  if (!training) return made;
  made->kept = ahead.workspace_desc();
  dnnl::pooling_backward::primitive_desc back(engine(), how, made->x, made->y, strides, window, none, before, after, ahead,
                                              user);
  made->backward = dnnl::pooling_backward(back);
  made->back_scratch = back.scratchpad_desc();
  return made;
}

// x and y for one direction, dx and dy for the other; x of the gradient is read where the maximum was taken.
ffi::Error compute(ffi::ThreadPool& pool, Spec spec, bool largest, bool training, const float* x, float* y, const float* dy,
                   float* dx) {
  return guarded([&] {
    static auto* known = new Cache<Pool>();
    const int64_t batch = spec[0], from = spec[1] * spec[2] * spec[3], to = spec[4] * spec[5] * spec[3];
    if (batch == 0) return;
    const int64_t parts = std::min(batch, thread_count(pool));
    parallel_for(pool, parts, [&](int64_t part) {
      Threads one(1);
      const Range r = range_of(batch, parts, part);
      std::vector<int64_t> key(spec.begin(), spec.end());
      key[0] = r.end - r.begin, key.push_back(largest), key.push_back(training);
      const auto made = known->get(key, [&] { return make(key); });
      Workspace scratch(made->scratch.get_size()), kept(made->kept.get_size());
      const memory indices = at(made->kept, kept.data());
      if (!training || largest) {
        Workspace values(training ? made->y.get_size() : 0);
        std::unordered_map<int, memory> all = {
            {DNNL_ARG_SRC, at(made->x, x + r.begin * from)},
            {DNNL_ARG_DST, at(made->y, training ? values.data() : y + r.begin * to)},
            {DNNL_ARG_SCRATCHPAD, at(made->scratch, scratch.data())}};
        if (training) all.emplace(DNNL_ARG_WORKSPACE, indices);
        run(made->forward, all);
      }
      if (!training) return;
      Workspace back(made->back_scratch.get_size());
      std::unordered_map<int, memory> all = {{DNNL_ARG_DIFF_DST, at(made->y, dy + r.begin * to)},
                                             {DNNL_ARG_DIFF_SRC, at(made->x, dx + r.begin * from)},
                                             {DNNL_ARG_SCRATCHPAD, at(made->back_scratch, back.data())}};
      if (largest) all.emplace(DNNL_ARG_WORKSPACE, indices);
      run(made->backward, all);
    });
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Spec spec, bool largest, Floats x, Result y) {
  return compute(pool, spec, largest, false, x.typed_data(), y->typed_data(), nullptr, nullptr);
}

// x may be (0) where a mean was taken.
ffi::Error Backward(ffi::ThreadPool pool, Spec spec, bool largest, Floats x, Floats dy, Result dx) {
  return compute(pool, spec, largest, true, x.typed_data(), nullptr, dy.typed_data(), dx->typed_data());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    OnednnPool, Forward,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Attr<bool>("largest").Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(OnednnPoolGrad, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Spec>("spec")
                                  .Attr<bool>("largest")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>());

KERASOFT_TARGET("onednn_pool", OnednnPool);
KERASOFT_TARGET("onednn_pool_grad", OnednnPoolGrad);

}  // namespace kerasoft
