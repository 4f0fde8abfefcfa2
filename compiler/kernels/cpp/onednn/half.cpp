// Products of bfloat16 rows with a bfloat16 matrix by oneDNN: sums in float32, rounded once.
//
// The rows of the result are cut among XLA's threads; each part is a primitive made for one thread.
#include "../registry.h"
#include "engine.h"

namespace kerasoft {
namespace {

enum Turned : int64_t { kLeft = 1, kRight = 2 };  // which operand is stored transposed

struct Product {
  dnnl::primitive primitive;
  memory::desc left, right, target, scratch;
};

std::shared_ptr<Product> product_of(int64_t m, int64_t n, int64_t k, int64_t rows, int64_t turned) {
  static auto* known = new Cache<Product>();
  return known->get({m, n, k, rows, turned}, [&] {
    Threads one(1);
    auto made = std::make_shared<Product>();
    Dims left = turned & kLeft ? Dims{1, m} : Dims{k, 1}, right = turned & kRight ? Dims{1, k} : Dims{n, 1};
    made->left = memory::desc({rows, k}, Type::bf16, left);
    made->right = memory::desc({k, n}, Type::bf16, right);
    made->target = memory::desc({rows, n}, Type::bf16, Tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::matmul::primitive_desc desc(engine(), made->left, made->right, made->target, attributes);
    made->primitive = dnnl::matmul(desc);
    made->scratch = desc.scratchpad_desc();
    return made;
  });
}

// (m, k), or (k, m) if turned, by (k, n), or (n, k) if turned -> (m, n)
ffi::Error HalfProduct(ffi::ThreadPool pool, int64_t m, int64_t n, int64_t k, int64_t turned, ffi::AnyBuffer left,
                       ffi::AnyBuffer right, ffi::Result<ffi::AnyBuffer> y) {
  return guarded([&] {
    int64_t parts = std::max<int64_t>(1, std::min<int64_t>(thread_count(pool), m / 16));
    std::vector<std::shared_ptr<Product>> made(parts);
    size_t scratch = 0;
    for (int64_t part = 0; part < parts; ++part) {
      Range r = range_of(m, parts, part);
      made[part] = product_of(m, n, k, r.end - r.begin, turned);
      scratch = std::max(scratch, aligned(made[part]->scratch.get_size()));
    }
    Workspace space(scratch * parts);
    auto* x = static_cast<uint16_t*>(left.untyped_data());
    auto* out = static_cast<uint16_t*>(y->untyped_data());
    parallel_for(pool, parts, [&](int64_t part) {
      Threads one(1);
      Range r = range_of(m, parts, part);
      const Product& p = *made[part];
      run(p.primitive, {{DNNL_ARG_SRC, at(p.left, x + (turned & kLeft ? r.begin : r.begin * k))},
                        {DNNL_ARG_WEIGHTS, at(p.right, right.untyped_data())},
                        {DNNL_ARG_DST, at(p.target, out + r.begin * n)},
                        {DNNL_ARG_SCRATCHPAD, at(p.scratch, static_cast<char*>(space.data()) + part * scratch)}});
    });
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(HalfProductHandler, HalfProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("m")
                                  .Attr<int64_t>("n")
                                  .Attr<int64_t>("k")
                                  .Attr<int64_t>("turned")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

KERASOFT_TARGET("half_product", HalfProductHandler);

}  // namespace
}  // namespace kerasoft
