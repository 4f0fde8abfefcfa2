// Batch normalisation of x (rows, channels), channels last, with its gradient; relu included where asked for.
//
// Forward: mean and biased variance of each channel over the rows, weighted by `valid` of the row's image, then
// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta. Rows are cut among the threads; blocks of rows that fit the
// cache are read twice from it (mean, then squares about it) and merged in double precision (Chan et al. 1979), so nothing
// cancels. Gradient: Ioffe and Szegedy (2015), section 3.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "registry.h"
#include "workspace.h"

namespace kerasoft {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

constexpr int64_t kBlockBytes = 32 * 1024;

int64_t parts_of(ffi::ThreadPool& pool, int64_t rows, int64_t channels) {
  return std::max<int64_t>(1, std::min<int64_t>(thread_count(pool), rows * channels / 16384));
}

struct Sizes {
  int64_t rows, channels, per_image, block;
  const float* valid;  // one number for each image, or null

  Sizes(const Floats& x, const float* valid) : valid(valid) {
    auto dims = x.dimensions();
    channels = dims.back();
    per_image = 1;
    for (size_t i = 1; i + 1 < dims.size(); ++i) per_image *= dims[i];
    rows = dims[0] * per_image;
    block = std::max<int64_t>(1, std::min<int64_t>(kBlockBytes / (4 * std::max<int64_t>(channels, 1)), 512));
  }
  float weight(int64_t row) const { return valid ? valid[row / per_image] : 1.0f; }
};

// Running weight, mean and squares about the mean of each channel.
struct Moments {
  double weight = 0;
  std::vector<double> mean, squares;
  explicit Moments(int64_t channels) : mean(channels), squares(channels) {}

  void merge(double more, const double* other_mean, const double* other_squares) {
    if (more <= 0) return;
    double total = weight + more, share = more / total, cross = weight * share;
    for (size_t c = 0; c < mean.size(); ++c) {
      double delta = other_mean[c] - mean[c];
      mean[c] += delta * share;
      squares[c] += other_squares[c] + delta * delta * cross;
    }
    weight = total;
  }
};

void measure(const Sizes& s, const float* x, Range range, Moments& into) {
  const int64_t n = s.channels;
  std::vector<float> sum(n), squares(n);
  std::vector<double> block_mean(n), block_squares(n);
  for (int64_t begin = range.begin; begin < range.end; begin += s.block) {
    int64_t end = std::min(range.end, begin + s.block);
    std::fill(sum.begin(), sum.end(), 0.0f);
    std::fill(squares.begin(), squares.end(), 0.0f);
    double weight = 0;
    float* __restrict a = sum.data();
    for (int64_t row = begin; row < end; ++row) {
      const float w = s.weight(row);
      const float* __restrict v = x + row * n;
      weight += w;
      if (w == 1.0f)
        for (int64_t c = 0; c < n; ++c) a[c] += v[c];
      else if (w != 0.0f)
        for (int64_t c = 0; c < n; ++c) a[c] += w * v[c];
    }
    if (weight <= 0) continue;
    const float scale = float(1.0 / weight);
    for (int64_t c = 0; c < n; ++c) a[c] *= scale;
    float* __restrict q = squares.data();
    for (int64_t row = begin; row < end; ++row) {
      const float w = s.weight(row);
      if (w == 0.0f) continue;
      const float* __restrict v = x + row * n;
      for (int64_t c = 0; c < n; ++c) {
        float d = v[c] - a[c];
        q[c] += w * d * d;
      }
    }
    for (int64_t c = 0; c < n; ++c) block_mean[c] = a[c], block_squares[c] = q[c];
    into.merge(weight, block_mean.data(), block_squares.data());
  }
}

template <bool kRelu>
void normalise(const Sizes& s, const float* x, const float* scale, const float* offset, float* y, Range range) {
  const int64_t n = s.channels;
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float* __restrict v = x + row * n;
    float* __restrict out = y + row * n;
    const float *__restrict a = scale, *__restrict b = offset;
    for (int64_t c = 0; c < n; ++c) {
      float value = v[c] * a[c] + b[c];
      out[c] = kRelu ? (value < 0.0f ? 0.0f : value) : value;  // NaN stays NaN
    }
  }
}

ffi::Error Forward(ffi::ThreadPool pool, float epsilon, bool relu, bool has_valid, Floats x, Floats gamma, Floats beta,
                   ffi::RemainingArgs rest, Result y, Result mean, Result variance) {
  const float* valid = has_valid ? rest.get<Floats>(0)->typed_data() : nullptr;
  Sizes s(x, valid);
  const int64_t n = s.channels, parts = parts_of(pool, s.rows, n);
  std::vector<Moments> moments(parts, Moments(n));
  const float* data = x.typed_data();
  parallel_for(pool, parts, [&](int64_t part) { measure(s, data, range_of(s.rows, parts, part), moments[part]); });
  for (int64_t part = 1; part < parts; ++part)
    moments[0].merge(moments[part].weight, moments[part].mean.data(), moments[part].squares.data());
  std::vector<float> scale(n), offset(n);
  const double weight = std::max(moments[0].weight, 1.0);
  for (int64_t c = 0; c < n; ++c) {
    double v = moments[0].squares[c] / weight;
    mean->typed_data()[c] = float(moments[0].mean[c]);
    variance->typed_data()[c] = float(v);
    double a = gamma.typed_data()[c] / std::sqrt(v + epsilon);
    scale[c] = float(a);
    offset[c] = float(beta.typed_data()[c] - moments[0].mean[c] * a);
  }
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(s.rows, parts, part);
    if (relu)
      normalise<true>(s, data, scale.data(), offset.data(), y->typed_data(), r);
    else
      normalise<false>(s, data, scale.data(), offset.data(), y->typed_data(), r);
  });
  return ffi::Error::Success();
}

// What the gradient needs of each channel: x is brought to `slope * x + level`; with relu, dy counts where
// `scale * x + offset` > 0.
struct Channel {
  std::vector<float> slope, level, scale, offset;
};

template <bool kRelu>
void sum_gradient(const Sizes& s, const Channel& k, const float* x, const float* dy, Range range, double* total,
                  double* along) {
  const int64_t n = s.channels;
  std::vector<float> sum(n), product(n);
  const float *__restrict slope = k.slope.data(), *__restrict level = k.level.data();
  const float *__restrict scale = k.scale.data(), *__restrict offset = k.offset.data();
  for (int64_t begin = range.begin; begin < range.end; begin += s.block) {
    int64_t end = std::min(range.end, begin + s.block);
    float *__restrict a = sum.data(), *__restrict b = product.data();
    std::fill(sum.begin(), sum.end(), 0.0f);
    std::fill(product.begin(), product.end(), 0.0f);
    for (int64_t row = begin; row < end; ++row) {
      const float *__restrict v = x + row * n, *__restrict d = dy + row * n;
      for (int64_t c = 0; c < n; ++c) {
        float g = kRelu ? (v[c] * scale[c] + offset[c] > 0.0f ? d[c] : 0.0f) : d[c];
        a[c] += g;
        b[c] += g * (v[c] * slope[c] + level[c]);
      }
    }
    for (int64_t c = 0; c < n; ++c) total[c] += a[c], along[c] += b[c];
  }
}

template <bool kRelu>
void apply_gradient(const Sizes& s, const Channel& k, const float* gain, const float* shift, const float* turn,
                    const float* x, const float* dy, float* dx, Range range) {
  const int64_t n = s.channels;
  const float *__restrict scale = k.scale.data(), *__restrict offset = k.offset.data();
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float w = s.weight(row);
    const float *__restrict v = x + row * n, *__restrict d = dy + row * n;
    float* __restrict out = dx + row * n;
    for (int64_t c = 0; c < n; ++c) {
      float g = kRelu ? (v[c] * scale[c] + offset[c] > 0.0f ? d[c] : 0.0f) : d[c];
      out[c] = gain[c] * g - w * (shift[c] + turn[c] * v[c]);
    }
  }
}

ffi::Error Gradient(ffi::ThreadPool pool, float epsilon, bool relu, bool has_valid, Floats x, Floats dy, Floats gamma,
                    Floats beta, Floats mean, Floats variance, ffi::RemainingArgs rest, Result dx, Result dgamma,
                    Result dbeta) {
  const float* valid = has_valid ? rest.get<Floats>(0)->typed_data() : nullptr;
  Sizes s(x, valid);
  const int64_t n = s.channels, parts = parts_of(pool, s.rows, n);
  Channel k{std::vector<float>(n), std::vector<float>(n), std::vector<float>(n), std::vector<float>(n)};
  for (int64_t c = 0; c < n; ++c) {
    double inverse = 1.0 / std::sqrt(double(variance.typed_data()[c]) + epsilon), m = mean.typed_data()[c];
    k.slope[c] = float(inverse), k.level[c] = float(-m * inverse);
    double a = gamma.typed_data()[c] * inverse;
    k.scale[c] = float(a), k.offset[c] = float(beta.typed_data()[c] - m * a);
  }
  std::vector<double> total(parts * n), along(parts * n);
  const float *in = x.typed_data(), *given = dy.typed_data();
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(s.rows, parts, part);
    auto* sum = relu ? sum_gradient<true> : sum_gradient<false>;
    sum(s, k, in, given, r, total.data() + part * n, along.data() + part * n);
  });
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t c = 0; c < n; ++c) total[c] += total[part * n + c], along[c] += along[part * n + c];
  double weight = 0;
  if (valid)
    for (int64_t i = 0; i < s.rows / std::max<int64_t>(s.per_image, 1); ++i) weight += double(valid[i]) * s.per_image;
  else
    weight = double(s.rows);
  weight = std::max(weight, 1.0);
  std::vector<float> gain(n), shift(n), turn(n);
  for (int64_t c = 0; c < n; ++c) {
    dbeta->typed_data()[c] = float(total[c]), dgamma->typed_data()[c] = float(along[c]);
    double a = double(gamma.typed_data()[c]) * k.slope[c];
    gain[c] = float(a);
    shift[c] = float(a / weight * (total[c] + along[c] * k.level[c]));
    turn[c] = float(a / weight * along[c] * k.slope[c]);
  }
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(s.rows, parts, part);
    auto* apply = relu ? apply_gradient<true> : apply_gradient<false>;
    apply(s, k, gain.data(), shift.data(), turn.data(), in, given, dx->typed_data(), r);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNorm, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("relu")
                                  .Attr<bool>("has_valid")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .RemainingArgs()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormGrad, Gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("relu")
                                  .Attr<bool>("has_valid")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .RemainingArgs()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

KERASOFT_TARGET("batch_norm", BatchNorm);
KERASOFT_TARGET("batch_norm_grad", BatchNormGrad);

}  // namespace kerasoft
