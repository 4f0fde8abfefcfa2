#include "convolution.h"

#include <immintrin.h>

#include <cstring>
#include <limits>

#include "../registry.h"

namespace kerasoft {

Shape::Shape(ffi::Span<const int64_t> spec) {
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
  return memory::desc(kernel(), Type::f32, strides);
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
  memory::desc x(s.source(rows), Type::f32, s.activations()), y(s.target(rows), Type::f32, s.activations());
  memory::desc w(s.kernel(), Type::f32, Tag::any), bias;
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
  dnnl::convolution_backward_weights::primitive_desc desc(engine(), direct, x, w, bias, y, s.strides, dilation,
                                                          s.before, s.after, hint, attributes);
  made->primitive = dnnl::convolution_backward_weights(desc);
  made->source = x, made->kernel = desc.diff_weights_desc(), made->target = y;
  keep(desc);
  return made;
}

std::shared_ptr<Convolution> Convolution::of(Pass pass, const Shape& s, int64_t rows, int64_t post, int threads) {
  static auto* known = new Cache<Convolution>();
  std::vector<int64_t> key = {int64_t(pass), post, threads, rows, s.rank, s.groups, s.channels, s.filters};
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

std::mutex& alone() {  // OpenMP's threads serve one caller at a time
  static std::mutex one;
  return one;
}

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

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

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

static void convolve(ffi::ThreadPool& pool, const Shape& s, Pass pass, int64_t post, const float* from,
                     const float* kernel, const float* bias, float* to) {
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
  const void* weights = same ? static_cast<const void*>(kernel) : ordered.data();
  bool ahead = pass == Pass::kForward;
  each(pool, cut, [&](int64_t part) {
    Range r = range_of(s.batch, cut.parts, part);
    const Convolution& c = *made[part];
    const float* a = from + r.begin * (ahead ? s.input_row() : s.output_row());
    float* b = to + r.begin * (ahead ? s.output_row() : s.input_row());
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
      for (int64_t i = r.begin; i < r.end; ++i) to[i] = to[i] < 0 ? 0 : to[i];
    });
  }
}

void forward(ffi::ThreadPool& pool, const Shape& s, int64_t post, const float* x, const float* kernel,
             const float* bias, float* y) {
  convolve(pool, s, Pass::kForward, post, x, kernel, bias, y);
}

void grad_input(ffi::ThreadPool& pool, const Shape& s, const float* dy, const float* kernel, float* dx) {
  convolve(pool, s, Pass::kGradInput, 0, dy, kernel, nullptr, dx);
}

void grad_kernel(ffi::ThreadPool& pool, const Shape& s, const float* x, const float* dy, float* dkernel) {
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
        {DNNL_ARG_SRC, at(c.source, x + r.begin * s.input_row())},
        {DNNL_ARG_DIFF_DST, at(c.target, dy + r.begin * s.output_row())},
        {DNNL_ARG_DIFF_WEIGHTS, at(c.kernel, kernels + part * kernel)},
        {DNNL_ARG_SCRATCHPAD, at(c.scratch, base + part * scratch)}};
    run(c.primitive, arguments);
  });
  int64_t floats = first.kernel.get_size() / sizeof(float);
  if (cut.parts > 1) {  // the parts' sums, always in the same order
    float* total = reinterpret_cast<float*>(kernels);
    int64_t pieces = floats > 16384 ? cut.parts : 1;
    parallel_for(pool, pieces, [&](int64_t piece) {
      Range r = range_of(floats, pieces, piece);
      for (int64_t part = 1; part < cut.parts; ++part) {
        const float* more = reinterpret_cast<const float*>(kernels + part * kernel);
        for (int64_t i = r.begin; i < r.end; ++i) total[i] += more[i];
      }
    });
  }
  reorder(pool, first.kernel, kernels, wanted, dkernel, s.groups == 1 ? 0 : 1);
}

// --- XLA's side ----------------------------------------------------------------------------------------------------

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;
using Spec = ffi::Span<const int64_t>;

template <typename Body>
static ffi::Error guarded(const Body& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

static ffi::Error Forward(ffi::ThreadPool pool, Spec spec, int64_t post, ffi::RemainingArgs args, Result y) {
  return guarded([&] {
    auto x = args.get<Floats>(0), kernel = args.get<Floats>(1);
    const float* bias = nullptr;
    size_t next = 2;
    if (post & kBias) bias = args.get<Floats>(next++)->typed_data();
    if (post & kSum) {
      auto sum = args.get<Floats>(next++);
      if (sum->typed_data() != y->typed_data()) {
        int64_t n = y->element_count(), parts = std::min<int64_t>(thread_count(pool), n / 65536 + 1);
        parallel_for(pool, parts, [&](int64_t part) {
          Range r = range_of(n, parts, part);
          std::memcpy(y->typed_data() + r.begin, sum->typed_data() + r.begin, (r.end - r.begin) * sizeof(float));
        });
      }
    }
    forward(pool, Shape(spec), post, x->typed_data(), kernel->typed_data(), bias, y->typed_data());
  });
}

static ffi::Error GradInput(ffi::ThreadPool pool, Spec spec, Floats dy, Floats kernel, Result dx) {
  return guarded([&] { grad_input(pool, Shape(spec), dy.typed_data(), kernel.typed_data(), dx->typed_data()); });
}

static ffi::Error GradKernel(ffi::ThreadPool pool, Spec spec, Floats x, Floats dy, Result dkernel) {
  return guarded(
      [&] { grad_kernel(pool, Shape(spec), x.typed_data(), dy.typed_data(), dkernel->typed_data()); });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvForward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Spec>("spec")
                                  .Attr<int64_t>("post")
                                  .RemainingArgs()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvGradInput, GradInput,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvGradKernel, GradKernel,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<Spec>("spec").Arg<Floats>().Arg<Floats>().Ret<Floats>());

KERASOFT_TARGET("conv", ConvForward);
KERASOFT_TARGET("conv_grad_input", ConvGradInput);
KERASOFT_TARGET("conv_grad_kernel", ConvGradKernel);

// The name of oneDNN's implementation, "" where it has none; for the rules of choice and explain().
extern "C" __attribute__((visibility("default"))) const char* kerasoft_conv_implementation(int64_t pass,
                                                                                           const int64_t* spec,
                                                                                           int64_t size) {
  static thread_local std::string name;
  try {
    Shape shape{ffi::Span<const int64_t>(spec, size)};
    name = Convolution::of(Pass(pass), shape, shape.batch, 0, 1)->name;
  } catch (const std::exception&) {
    name = "";
  }
  return name.c_str();
}

}  // namespace kerasoft
