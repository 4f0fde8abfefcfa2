// Convolutions and products of 8-bit integers with oneDNN: int32 sums, then in floats a factor and an offset for each
// channel, a scaled addend, relu and an upper bound, rounded to integers again where the result is one.
//
// Cut among XLA's threads as float convolutions are (convolution.h). Kernels that never change come with a digest of
// their contents; they are brought into oneDNN's order once a process, and copies are shared by all executables.
#include <cstring>

#include "../registry.h"
#include "convolution.h"

namespace kerasoft {
namespace {

enum Post : int64_t { kRectify = 1, kAddend = 2, kBounded = 4 };

Type type_of(ffi::DataType type) {
  return type == ffi::DataType::U8 ? Type::u8 : type == ffi::DataType::S8 ? Type::s8 : Type::f32;
}

// A primitive for `rows` rows of a convolution (a product when the shape has no spatial axes).
struct Integer {
  dnnl::primitive primitive;
  memory::desc source, kernel, target, scratch;
};

struct Plan {
  Type source, target, addend;
  int64_t post;
  float add_scale, upper;
};

int32_t bits(float value) {
  int32_t found;
  std::memcpy(&found, &value, 4);
  return found;
}

dnnl::primitive_attr attributes_of(const Plan& plan, int mask) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_scales_mask(DNNL_ARG_WEIGHTS, mask);
  dnnl::post_ops after;
  if (plan.post & kAddend) after.append_sum(plan.add_scale, 0, plan.addend);
  if (plan.post & kRectify) after.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
  if (plan.post & kBounded) after.append_eltwise(dnnl::algorithm::eltwise_clip, -3.4e38f, plan.upper);
  attributes.set_post_ops(after);
  return attributes;
}

std::shared_ptr<Integer> make(const Shape& s, const Plan& plan, int64_t rows, int threads) {
  Threads limit(threads);
  auto made = std::make_shared<Integer>();
  if (s.rank == 0) {
    memory::desc x({rows, s.channels}, plan.source, Tag::ab), y({rows, s.filters}, plan.target, Tag::ab);
    memory::desc w({s.channels, s.filters}, Type::s8, Tag::any), bias({1, s.filters}, Type::f32, Tag::ab);
    dnnl::matmul::primitive_desc desc(engine(), x, w, bias, y, attributes_of(plan, 1 << 1));
    made->primitive = dnnl::matmul(desc);
    made->source = x, made->kernel = desc.weights_desc(), made->target = y, made->scratch = desc.scratchpad_desc();
    return made;
  }
  Dims dilation = s.dilation;
  for (auto& d : dilation) d -= 1;
  memory::desc x(s.source(rows), plan.source, s.activations()), y(s.target(rows), plan.target, s.activations());
  memory::desc w(s.kernel(), Type::s8, Tag::any), bias({s.filters}, Type::f32, Tag::x);
  dnnl::convolution_forward::primitive_desc desc(engine(), dnnl::prop_kind::forward_inference,
                                                 dnnl::algorithm::convolution_direct, x, w, bias, y, s.strides, dilation,
                                                 s.before, s.after, attributes_of(plan, s.groups > 1 ? 3 : 1));
  made->primitive = dnnl::convolution_forward(desc);
  made->source = x, made->kernel = desc.weights_desc(), made->target = y, made->scratch = desc.scratchpad_desc();
  return made;
}

std::vector<int64_t> key_of(const Shape& s, const Plan& plan) {
  std::vector<int64_t> key = {int64_t(plan.source), int64_t(plan.target), int64_t(plan.addend), plan.post,
                              bits(plan.add_scale), bits(plan.upper), s.rank, s.groups, s.channels, s.filters};
  for (const Dims* dims : {&s.input, &s.output, &s.window, &s.strides, &s.dilation, &s.before, &s.after})
    key.insert(key.end(), dims->begin(), dims->end());
  return key;
}

std::shared_ptr<Integer> primitive_of(const Shape& s, const Plan& plan, int64_t rows, int threads) {
  static auto* known = new Cache<Integer>();
  std::vector<int64_t> key = key_of(s, plan);
  key.push_back(rows), key.push_back(threads);
  return known->get(key, [&] { return make(s, plan, rows, threads); });
}

memory::desc user_kernel(const Shape& s) {
  if (s.rank == 0) return memory::desc({s.channels, s.filters}, Type::s8, Tag::ab);
  memory::desc floats = s.user_kernel();
  return memory::desc(floats.get_dims(), Type::s8, floats.get_strides());
}

// A kernel in a primitive's order.
struct Ordered {
  std::vector<char> bytes;
  char* data;

  Ordered(const memory::desc& given, const void* kernel, const memory::desc& wanted) : bytes(wanted.get_size() + 64) {
    data = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
    Threads one(1);
    memory a = at(given, kernel), b = at(wanted, data);
    run(dnnl::reorder(a, b), {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}});
  }
};

// The kernel with this digest in the order of `one`; {} as digest means that it may differ in each call.
std::shared_ptr<Ordered> ordered(const Shape& s, const Plan& plan, ffi::Span<const int64_t> digest, const Integer& one,
                                 int64_t rows, int threads, const void* kernel) {
  auto made = [&] { return std::make_shared<Ordered>(user_kernel(s), kernel, one.kernel); };
  if (digest.size() == 0) return made();
  static auto* known = new Cache<Ordered>();
  std::vector<int64_t> key = key_of(s, plan);
  key.push_back(rows), key.push_back(threads);
  key.insert(key.end(), digest.begin(), digest.end());
  return known->get(key, made);
}

std::mutex& alone() {  // OpenMP's threads serve one caller at a time
  static std::mutex one;
  return one;
}

void compute(ffi::ThreadPool& pool, const Shape& s, const Plan& plan, ffi::Span<const int64_t> digest, const char* x,
             const void* kernel, const float* multiplier, const float* bias, char* y, int64_t x_row, int64_t y_row) {
  if (s.batch == 0) return;
  int64_t threads = thread_count(pool), parts = s.batch >= threads ? threads : 1;
  int inner = s.batch >= threads ? 1 : int(threads);
  std::vector<std::shared_ptr<Integer>> made(parts);
  size_t scratch = 0;
  for (int64_t part = 0; part < parts; ++part) {
    Range r = range_of(s.batch, parts, part);
    made[part] = primitive_of(s, plan, r.end - r.begin, inner);
    scratch = std::max(scratch, (made[part]->scratch.get_size() + 63) / 64 * 64);
  }
  std::vector<std::shared_ptr<Ordered>> kernels(parts);
  for (int64_t part = 0; part < parts; ++part) {
    if (part && made[part]->kernel == made[0]->kernel) {
      kernels[part] = kernels[0];
      continue;
    }
    Range r = range_of(s.batch, parts, part);
    kernels[part] = ordered(s, plan, digest, *made[part], r.end - r.begin, inner, kernel);
  }
  Workspace space(scratch * parts);
  memory::desc scales({s.filters}, Type::f32, Tag::x);
  memory::desc offsets = s.rank == 0 ? memory::desc({1, s.filters}, Type::f32, Tag::ab) : scales;
  auto body = [&](int64_t part) {
    Range r = range_of(s.batch, parts, part);
    const Integer& one = *made[part];
    run(one.primitive,
        {{DNNL_ARG_SRC, at(one.source, x + r.begin * x_row)},
         {DNNL_ARG_WEIGHTS, at(one.kernel, kernels[part]->data)},
         {DNNL_ARG_BIAS, at(offsets, bias)},
         {DNNL_ARG_DST, at(one.target, y + r.begin * y_row)},
         {DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, at(scales, multiplier)},
         {DNNL_ARG_SCRATCHPAD, at(one.scratch, static_cast<char*>(space.data()) + part * scratch)}});
  };
  if (inner == 1) {
    parallel_for(pool, parts, [&](int64_t part) {
      Threads one(1);
      body(part);
    });
    return;
  }
  std::lock_guard<std::mutex> lock(alone());
  Threads all(inner);
  body(0);
}

// x, kernel, multiplier, bias[, addend] -> y
ffi::Error Quantised(ffi::ThreadPool pool, ffi::Span<const int64_t> spec, int64_t post, float add_scale, float upper,
                     ffi::Span<const int64_t> digest, ffi::RemainingArgs args, ffi::Result<ffi::AnyBuffer> y) {
  if (!__builtin_cpu_supports("avx512vnni") && !__builtin_cpu_supports("avxvnni"))
    return ffi::Error::Internal("8-bit kernels need a processor with AVX-512 VNNI or AVX-VNNI, which this host lacks");
  return guarded([&] {
    auto x = args.get<ffi::AnyBuffer>(0), kernel = args.get<ffi::AnyBuffer>(1);
    auto multiplier = args.get<ffi::AnyBuffer>(2), bias = args.get<ffi::AnyBuffer>(3);
    Shape shape(spec);
    Plan plan{type_of(x->element_type()), type_of(y->element_type()), Type::f32, post, add_scale, upper};
    if (post & kAddend) {
      auto addend = args.get<ffi::AnyBuffer>(4);
      plan.addend = type_of(addend->element_type());
      if (addend->untyped_data() != y->untyped_data()) {
        int64_t n = y->size_bytes(), parts = std::min<int64_t>(thread_count(pool), n / 65536 + 1);
        parallel_for(pool, parts, [&](int64_t part) {
          Range r = range_of(n, parts, part);
          std::memcpy(static_cast<char*>(y->untyped_data()) + r.begin,
                      static_cast<const char*>(addend->untyped_data()) + r.begin, r.end - r.begin);
        });
      }
    }
    int64_t each = plan.target == Type::f32 ? 4 : 1;
    compute(pool, shape, plan, digest, static_cast<const char*>(x->untyped_data()), kernel->untyped_data(),
            static_cast<const float*>(multiplier->untyped_data()), static_cast<const float*>(bias->untyped_data()),
            static_cast<char*>(y->untyped_data()), shape.input_row(), shape.output_row() * each);
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(QuantisedHandler, Quantised,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<ffi::Span<const int64_t>>("spec")
                                  .Attr<int64_t>("post")
                                  .Attr<float>("add_scale")
                                  .Attr<float>("upper")
                                  .Attr<ffi::Span<const int64_t>>("digest")
                                  .RemainingArgs()
                                  .Ret<ffi::AnyBuffer>());

KERASOFT_TARGET("quantised", QuantisedHandler);

}  // namespace
}  // namespace kerasoft
