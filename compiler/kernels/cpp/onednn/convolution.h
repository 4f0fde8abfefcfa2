// A convolution of channels-last tensors with oneDNN: forward with bias, sum and relu, and both gradients.
//
// The batch is cut among XLA's threads, each of which runs a primitive made for one thread on its rows; a batch smaller
// than the threads is computed by one primitive with OpenMP's threads, one at a time. Kernels come as (window, in / groups,
// out), as Keras keeps them, and are brought into oneDNN's order in each call.
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

  explicit Shape(ffi::Span<const int64_t> spec);
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

void forward(ffi::ThreadPool& pool, const Shape& shape, int64_t post, const float* x, const float* kernel,
             const float* bias, float* y);
void grad_input(ffi::ThreadPool& pool, const Shape& shape, const float* dy, const float* kernel, float* dx);
void grad_kernel(ffi::ThreadPool& pool, const Shape& shape, const float* x, const float* dy, float* dkernel);

}  // namespace kerasoft
