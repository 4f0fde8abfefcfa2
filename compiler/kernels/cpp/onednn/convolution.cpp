#include "convolution.h"

#include <immintrin.h>

#include <cstring>
#include <limits>

#include "../registry.h"

namespace kerasoft {

Shape::Shape(ffi::Span<const int64_t> spec, Type type) : type(type) {
  const int64_t* at = spec.begin();
  rank = *at++, groups = *at++, batch = *at++, channels = *at++, filters = *at++;
  for (Dims* dims : {&input, &output, &window, &strides, &dilation, &before, &after}) {
    dims->assign(at, at + rank);
    at += rank;
  }
}

static int64_t product(const Dims& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

int64_t Shape::input_row() const { return channels * product(input); }
int64_t Shape::output_row() const { return filters * product(output); }

static Dims joined(std::initializer_list<int64_t> first, const Dims& rest) {
  Dims dims(first);
  dims.insert(dims.end(), rest.begin(), rest.end());
  return dims;
}

Dims Shape::source(int64_t rows) const { return joined({rows, channels}, input); }
Dims Shape::target(int64_t rows) const { return joined({rows, filters}, output); }
Dims Shape::kernel() const {
  if (groups == 1) return joined({filters, channels}, window);
  return joined({groups, filters / groups, channels / groups}, window);
}
Tag Shape::activations() const { return rank == 1 ? Tag::nwc : rank == 2 ? Tag::nhwc : Tag::ndhwc; }

memory::desc Shape::user_kernel() const {
  int64_t taken = channels / groups, made = filters / groups;
  Dims strides;
  if (groups > 1) strides.push_back(made);  // filters stand group by group
  strides.push_back(1);
  strides.push_back(filters);
  Dims spatial(rank);
  int64_t step = taken * filters;
  for (int64_t i = rank - 1; i >= 0; --i) spatial[i] = step, step *= window[i];
  strides.insert(strides.end(), spatial.begin(), spatial.end());
  return memory::desc(kernel(), type, strides);
}

// oneDNN's relu makes 0 of NaN, for it takes a maximum; a leaky one compares, and keeps NaN. So relu is a leaky one whose
// slope is the least number above 0, computed with denormal numbers taken for zeros: what is negative becomes -0 (and -Inf
// becomes NaN, which is seen, where a lost NaN is not).
constexpr float kLeast = std::numeric_limits<float>::denorm_min();

class Denormals {
 public:
  explicit Denormals(bool kept) : before_(_mm_getcsr()) { _mm_setcsr(kept ? before_ & ~kZeros : before_ | kZeros); }
  ~Denormals() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned kZeros = 0x8040;  // both as inputs and as results
  unsigned before_;
};

static std::shared_ptr<Convolution> make(Pass pass, const Shape& s, int64_t rows, int64_t post, int threads) {
  Threads limit(threads);
  Denormals kept(true);  // the slope
  Dims dilation = s.dilation;
  for (auto& d : dilation) d -= 1;
  memory::desc x(s.source(rows), s.type, s.activations()), y(s.target(rows), s.type, s.activations());
  memory::desc w(s.kernel(), s.type, Tag::any), bias;
  if (post & kBias) bias = memory::desc({s.filters}, Type::f32, Tag::x);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
  auto made = std::make_shared<Convolution>();
  auto keep = [&](auto& desc) { made->scratch = desc.scratchpad_desc(), made->name = desc.impl_info_str(); };
  if (pass == Pass::kForward) {
    dnnl::post_ops after;
    if (post & kSum) after.append_sum(1.0f);
    if (post & kRelu) after.append_eltwise(dnnl::algorithm::eltwise_relu, kLeast, 0.0f);
    attributes.set_post_ops(after);
    dnnl::convolution_forward::primitive_desc desc(engine(), dnnl::prop_kind::forward_inference, direct, x, w, bias, y,
                                                   s.strides, dilation, s.before, s.after, attributes);
    made->primitive = dnnl::convolution_forward(desc);
    made->source = x, made->kernel = desc.weights_desc(), made->target = y;
    keep(desc);
    return made;
  }
  dnnl::convolution_forward::primitive_desc hint(engine(), dnnl::prop_kind::forward_training, direct, x, w, bias, y,
                                                 s.strides, dilation, s.before, s.after);
  if (pass == Pass::kGradInput) {
    dnnl::convolution_backward_data::primitive_desc desc(engine(), direct, x, w, y, s.strides, dilation, s.before,
                                                         s.after, hint, attributes);
    made->primitive = dnnl::convolution_backward_data(desc);
    made->source = x, made->kernel = desc.weights_desc(), made->target = y;
    keep(desc);
    return made;
  }
  memory::desc sums(s.kernel(), Type::f32, Tag::any);  // parts of the batch are added up before they are rounded
  dnnl::convolution_backward_weights::primitive_desc desc(engine(), direct, x, sums, bias, y, s.strides, dilation,
                                                          s.before, s.after, hint, attributes);
  made->primitive = dnnl::convolution_backward_weights(desc);
  made->source = x, made->kernel = desc.diff_weights_desc(), made->target = y;
  keep(desc);
  return made;
}

std::shared_ptr<Convolution> Convolution::of(Pass pass, const Shape& s, int64_t rows, int64_t post, int threads) {
  static auto* known = new Cache<Convolution>();
  std::vector<int64_t> key = {int64_t(pass), post, threads, rows, int64_t(s.type), s.rank, s.groups, s.channels, s.filters};
  for (const Dims* dims : {&s.input, &s.output, &s.window, &s.strides, &s.dilation, &s.before, &s.after})
    key.insert(key.end(), dims->begin(), dims->end());
  return known->get(key, [&] { return make(pass, s, rows, post, threads); });
}

namespace {

// How a batch is cut: into parts of rows for one thread each, or not at all, with OpenMP's threads inside.
struct Cut {
  int64_t parts;
  int threads;  // of each primitive

  Cut(ffi::ThreadPool& pool, int64_t batch) {
    int64_t n = thread_count(pool);
    parts = batch >= n ? n : 1;
    threads = batch >= n ? 1 : int(n);
  }
};

template <typename Body>
void each(ffi::ThreadPool& pool, const Cut& cut, const Body& body) {
  if (cut.threads == 1) {
    parallel_for(pool, cut.parts, [&](int64_t part) {
      Threads one(1);
      body(part);
    });
    return;
  }
  std::lock_guard<std::mutex> lock(alone());
  Threads all(cut.threads);
  body(0);
}

// Primitives for each part: parts differ by one row at most.
std::vector<std::shared_ptr<Convolution>> primitives(Pass pass, const Shape& s, const Cut& cut, int64_t post) {
  std::vector<std::shared_ptr<Convolution>> made;
  for (int64_t part = 0; part < cut.parts; ++part) {
    Range r = range_of(s.batch, cut.parts, part);
    made.push_back(Convolution::of(pass, s, r.end - r.begin, post, cut.threads));
    // Implementations may differ between row counts, and with them the order of the kernel.
    if (made.back()->kernel != made.front()->kernel) return {};
  }
  return made;
}

std::vector<std::shared_ptr<Convolution>> plan(Pass pass, const Shape& s, Cut& cut, int64_t post) {
  auto made = primitives(pass, s, cut, post);
  if (made.empty()) {
    cut.parts = 1;
    made = primitives(pass, s, cut, post);
  }
  return made;
}

}  // namespace

static void convolve(ffi::ThreadPool& pool, const Shape& s, Pass pass, int64_t post, const void* from,
                     const void* kernel, const void* bias, void* to) {
  if (s.batch == 0) return;
  Cut cut(pool, s.batch);
  const bool apart = cut.threads > 1 && post & kRelu;  // OpenMP's threads keep denormal numbers
  if (apart) post &= ~kRelu;
  auto made = plan(pass, s, cut, post);
  const Convolution& first = *made.front();
  memory::desc given = s.user_kernel();
  bool same = given == first.kernel;
  size_t scratch = aligned(first.scratch.get_size());
  for (auto& one : made) scratch = std::max(scratch, aligned(one->scratch.get_size()));
  Workspace ordered(same ? 0 : first.kernel.get_size()), space(scratch * cut.parts);
  if (!same) reorder(pool, given, kernel, first.kernel, ordered.data(), s.groups == 1 ? 0 : 1);
  const void* weights = same ? kernel : ordered.data();
  bool ahead = pass == Pass::kForward;
  each(pool, cut, [&](int64_t part) {
    Range r = range_of(s.batch, cut.parts, part);
    const Convolution& c = *made[part];
    const char* a = static_cast<const char*>(from) + r.begin * (ahead ? s.input_row() : s.output_row()) * s.bytes();
    char* b = static_cast<char*>(to) + r.begin * (ahead ? s.output_row() : s.input_row()) * s.bytes();
    std::unordered_map<int, memory> arguments = {
        {ahead ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, at(ahead ? c.source : c.target, a)},
        {DNNL_ARG_WEIGHTS, at(c.kernel, weights)},
        {ahead ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC, at(ahead ? c.target : c.source, b)},
        {DNNL_ARG_SCRATCHPAD, at(c.scratch, static_cast<char*>(space.data()) + part * scratch)}};
    if (post & kBias) arguments.emplace(DNNL_ARG_BIAS, at(memory::desc({s.filters}, Type::f32, Tag::x), bias));
    Denormals zeros(false);
    run(c.primitive, arguments);
  });
  if (apart) {
    const int64_t floats = s.batch * s.output_row(), parts = std::min<int64_t>(cut.threads, floats / 4096 + 1);
    parallel_for(pool, parts, [&](int64_t part) {
      Range r = range_of(floats, parts, part);
      float* y = static_cast<float*>(to);
      for (int64_t i = r.begin; i < r.end; ++i) y[i] = y[i] < 0 ? 0 : y[i];
    });
  }
}

static void grad_kernel(ffi::ThreadPool& pool, const Shape& s, const void* x, const void* dy, void* dkernel) {
  memory::desc wanted = s.user_kernel();
  if (s.batch == 0) {
    std::memset(dkernel, 0, wanted.get_size());
    return;
  }
  Cut cut(pool, s.batch);
  auto made = plan(Pass::kGradKernel, s, cut, 0);
  const Convolution& first = *made.front();
  size_t scratch = 0, kernel = aligned(first.kernel.get_size());
  for (auto& one : made) scratch = std::max(scratch, aligned(one->scratch.get_size()));
  Workspace space((scratch + kernel) * cut.parts);
  char* base = static_cast<char*>(space.data());
  char *kernels = base + scratch * cut.parts;
  each(pool, cut, [&](int64_t part) {
    Range r = range_of(s.batch, cut.parts, part);
    const Convolution& c = *made[part];
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, at(c.source, static_cast<const char*>(x) + r.begin * s.input_row() * s.bytes())},
        {DNNL_ARG_DIFF_DST, at(c.target, static_cast<const char*>(dy) + r.begin * s.output_row() * s.bytes())},
        {DNNL_ARG_DIFF_WEIGHTS, at(c.kernel, kernels + part * kernel)},
        {DNNL_ARG_SCRATCHPAD, at(c.scratch, base + part * scratch)}};
    run(c.primitive, arguments);
  });
  add_up(pool, kernels, cut.parts, kernel, first.kernel.get_size() / sizeof(float));
  reorder(pool, first.kernel, kernels, wanted, dkernel, s.groups == 1 ? 0 : 1);
}

// --- XLA's side ----------------------------------------------------------------------------------------------------

using Floats = ffi::Buffer<ffi::F32>;
using Spec = ffi::Span<const int64_t>;

using Any = ffi::AnyBuffer;
using AnyResult = ffi::Result<ffi::AnyBuffer>;

static Type type_of(const Any& x) { return x.element_type() == ffi::BF16 ? Type::bf16 : Type::f32; }

static ffi::Error Forward(ffi::ThreadPool pool, Spec spec, int64_t post, ffi::RemainingArgs args, AnyResult y) {
  return guarded([&] {
    auto x = args.get<Any>(0), kernel = args.get<Any>(1);
    const float* bias = nullptr;
    size_t next = 2;
    if (post & kBias) bias = args.get<Floats>(next++)->typed_data();
    if (post & kSum) {
      const float* sum = args.get<Floats>(next++)->typed_data();
      float* out = static_cast<float*>(y->untyped_data());
      if (sum != out) {
        int64_t n = y->element_count(), parts = std::min<int64_t>(thread_count(pool), n / 65536 + 1);
        parallel_for(pool, parts, [&](int64_t part) {
          Range r = range_of(n, parts, part);
          std::memcpy(out + r.begin, sum + r.begin, (r.end - r.begin) * sizeof(float));
        });
      }
    }
    convolve(pool, Shape(spec, type_of(*x)), Pass::kForward, post, x->untyped_data(), kernel->untyped_data(), bias,
             y->untyped_data());
  });
}

static ffi::Error GradInput(ffi::ThreadPool pool, Spec spec, Any dy, Any kernel, AnyResult dx) {
  return guarded([&] {
    convolve(pool, Shape(spec, type_of(dy)), Pass::kGradInput, 0, dy.untyped_data(), kernel.untyped_data(), nullptr,
             dx->untyped_data());
  });
}

static ffi::Error GradKernel(ffi::ThreadPool pool, Spec spec, Any x, Any dy, AnyResult dkernel) {
  return guarded([&] {
    grad_kernel(pool, Shape(spec, type_of(x)), x.untyped_data(), dy.untyped_data(), dkernel->untyped_data());
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvForward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Spec>("spec")
                                  .Attr<int64_t>("post")
                                  .RemainingArgs()
                                  .Ret<Any>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvGradInput, GradInput,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Any>().Arg<Any>().Ret<Any>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvGradKernel, GradKernel,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Any>().Arg<Any>().Ret<Any>());

KERASOFT_TARGET("conv", ConvForward);
KERASOFT_TARGET("conv_grad_input", ConvGradInput);
KERASOFT_TARGET("conv_grad_kernel", ConvGradKernel);

// The name of oneDNN's implementation, "" where it has none; for the rules of choice and explain().
extern "C" __attribute__((visibility("default"))) const char* kerasoft_conv_implementation(int64_t pass,
                                                                                           const int64_t* spec,
                                                                                           int64_t size, bool half) {
  static thread_local std::string name;
  try {
    Shape shape(ffi::Span<const int64_t>(spec, size), half ? Type::bf16 : Type::f32);
    name = Convolution::of(Pass(pass), shape, shape.batch, 0, 1)->name;
  } catch (const std::exception&) {
    name = "";
  }
  return name.c_str();
}

}  // namespace kerasoft
