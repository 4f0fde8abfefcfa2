// Scratch memory of a call, kept for the next call: no page faults, no sharing between calls that run at once.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace kerasoft {

class Workspace {
 public:
  explicit Workspace(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    {
      std::lock_guard<std::mutex> lock(mutex());
      auto& kept = pool();
      size_t best = kept.size();
      for (size_t i = 0; i < kept.size(); ++i)
        if (kept[i].bytes >= bytes && (best == kept.size() || kept[i].bytes < kept[best].bytes)) best = i;
      if (best < kept.size() && kept[best].bytes <= 4 * bytes + (1 << 16)) {
        data_ = kept[best].data;
        bytes_ = kept[best].bytes;
        kept.erase(kept.begin() + best);
        return;
      }
    }
    const size_t page = bytes >= kHugePage ? kHugePage : 4096;
    bytes_ = (bytes + page - 1) / page * page;
    data_ = std::aligned_alloc(page, bytes_);
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (page == kHugePage) madvise(data_, bytes_, MADV_HUGEPAGE);  // many streams at once need few entries of the TLB
#endif
  }
  ~Workspace() {
    if (!data_) return;
    void* drop = data_;
    {
      std::lock_guard<std::mutex> lock(mutex());
      auto& kept = pool();
      kept.push_back({data_, bytes_});
      drop = nullptr;
      if (kept.size() > kKept) {  // the one that has not been used for the longest time
        drop = kept.front().data;
        kept.erase(kept.begin());
      }
    }
    std::free(drop);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }

 private:
  struct Piece {
    void* data;
    size_t bytes;
  };
  static constexpr size_t kKept = 32;
  static constexpr size_t kHugePage = 2 << 20;
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  static std::vector<Piece>& pool() {
    static std::vector<Piece>* one = new std::vector<Piece>();
    return *one;
  }

  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace kerasoft
