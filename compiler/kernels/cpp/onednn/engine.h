// What all calls of oneDNN share: the engine, a stream of each thread, OpenMP's thread count, reorders and sums cut among
// threads, errors.
#pragma once

#include <dlfcn.h>

#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

#include "../parallel.h"
#include "../workspace.h"

namespace kerasoft {

using dnnl::memory;
using Dims = memory::dims;
using Tag = memory::format_tag;
using Type = memory::data_type;

inline dnnl::engine& engine() {
  static dnnl::engine* one = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *one;
}

// Work of this thread for oneDNN, with `threads` of OpenMP's while it lives (1: none but this one).
class Threads {
 public:
  explicit Threads(int threads) {
    static auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
    static auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
    set_ = set;
    before_ = get ? get() : 1;
    if (set_) set_(threads);
  }
  ~Threads() {
    if (set_) set_(before_);
  }

 private:
  void (*set_)(int);
  int before_;
};

inline dnnl::stream& stream() {
  static thread_local dnnl::stream one(engine());
  return one;
}

inline memory at(const memory::desc& desc, const void* data) { return memory(desc, engine(), const_cast<void*>(data)); }

inline void run(const dnnl::primitive& primitive, const std::unordered_map<int, memory>& arguments) {
  primitive.execute(stream(), arguments);
  stream().wait();
}

// Copies `from` to `to`, two layouts of the same tensor, cut along `axis` among the threads where the layouts allow.
inline void reorder(ffi::ThreadPool& pool, const memory::desc& from, const void* source, const memory::desc& to,
                    void* target, int axis) {
  int64_t size = from.get_dims()[axis], block = 64;
  int64_t blocks = size / block, parts = std::min<int64_t>(thread_count(pool), blocks);
  if (parts > 1 && size % block == 0 && from.get_size() > (1 << 16)) {
    std::vector<memory::desc> cut_from, cut_to;
    for (int64_t part = 0; part < parts; ++part) {
      Range r = range_of(blocks, parts, part);
      Dims dims = from.get_dims(), offset(dims.size(), 0);
      dims[axis] = (r.end - r.begin) * block;
      offset[axis] = r.begin * block;
      cut_from.push_back(from.submemory_desc(dims, offset, true));
      cut_to.push_back(to.submemory_desc(dims, offset, true));
      if (!cut_from.back() || !cut_to.back()) parts = 0;
    }
    if (parts) {
      parallel_for(pool, parts, [&](int64_t part) {
        Threads one(1);
        memory a = at(cut_from[part], source), b = at(cut_to[part], target);
        run(dnnl::reorder(a, b), {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}});
      });
      return;
    }
  }
  Threads one(1);
  memory a = at(from, source), b = at(to, target);
  run(dnnl::reorder(a, b), {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}});
}

// What `body` does, as XLA's answer.
template <typename Body>
ffi::Error guarded(const Body& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

inline size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

inline std::mutex& alone() {  // OpenMP's threads serve one caller at a time
  static std::mutex one;
  return one;
}

// The sums of `parts` arrays of `floats` numbers, `apart` bytes from one to the next, in the first; always in this order.
inline void add_up(ffi::ThreadPool& pool, void* first, int64_t parts, size_t apart, int64_t floats) {
  float* total = static_cast<float*>(first);
  const int64_t pieces = floats > 16384 ? thread_count(pool) : 1;
  parallel_for(pool, pieces, [&](int64_t piece) {
    Range r = range_of(floats, pieces, piece);
    for (int64_t part = 1; part < parts; ++part) {
      const float* more = reinterpret_cast<const float*>(static_cast<const char*>(first) + part * apart);
      for (int64_t i = r.begin; i < r.end; ++i) total[i] += more[i];
    }
  });
}

// Things made once for a key and then only read; any thread.
template <typename T>
class Cache {
 public:
  template <typename Make>
  std::shared_ptr<T> get(const std::vector<int64_t>& key, const Make& make) {
    std::string text(reinterpret_cast<const char*>(key.data()), key.size() * sizeof(int64_t));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      auto found = known_.find(text);
      if (found != known_.end()) return found->second;
    }
    std::shared_ptr<T> made = make();
    std::lock_guard<std::mutex> lock(mutex_);
    if (known_.size() > 4096) known_.clear();
    return known_.emplace(text, made).first->second;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<T>> known_;
};

}  // namespace kerasoft
