// A convolution of channels-last tensors with oneDNN: forward with bias, sum and relu, and both gradients.
//
// The batch is cut among XLA's threads, each of which runs a primitive made for one thread on its rows; a batch smaller
// than the threads is computed by one primitive with OpenMP's threads, one at a time. Kernels come as (window, in / groups,
// out), as Keras keeps them, and are brought into oneDNN's order in each call. All in float32, or all in bfloat16 (no bias, sum
// or relu then).
#pragma once

#include "engine.h"

namespace kerasoft {

enum class Pass : int64_t { kForward = 0, kGradInput = 1, kGradKernel = 2 };
enum Post : int64_t { kBias = 1, kRelu = 2, kSum = 4 };

// Sizes of a convolution; `spec` is rank, groups, batch, channels, filters, then for each spatial axis: input sizes,
// output sizes, window, strides, dilation, padding before, padding after.
struct Shape {
  int64_t rank, groups, batch, channels, filters;
  Dims input, output, window, strides, dilation, before, after;
  Type type = Type::f32;  // of all tensors; or bf16, with sums in float32

  explicit Shape(ffi::Span<const int64_t> spec, Type type = Type::f32);
  int64_t bytes() const { return type == Type::f32 ? 4 : 2; }  // of an element
  int64_t input_row() const;   // elements of one row of the batch
  int64_t output_row() const;
  Dims source(int64_t rows) const, target(int64_t rows) const, kernel() const;
  Tag activations() const;
  memory::desc user_kernel() const;  // in Keras' order
};

// A primitive for `rows` rows and `threads` threads.
struct Convolution {
  dnnl::primitive primitive;
  memory::desc source, kernel, target, scratch;
  std::string name;  // of oneDNN's implementation

  static std::shared_ptr<Convolution> of(Pass pass, const Shape& shape, int64_t rows, int64_t post, int threads);
};

}  // namespace kerasoft
