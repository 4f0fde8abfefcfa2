// Large blocks of memory for XLA: kept when freed, given out again, on huge pages.
//
// XLA allocates the temporaries and results of every call anew, with posix_memalign. glibc maps large blocks from the
// kernel and gives them back, so every step faults its pages in again (217,000 for ResNet-50 at batch 8), and mallopt
// cannot end that: threads that are not in the first arena map whatever exceeds 64 MB. So the calls of posix_memalign and
// free in jaxlib's library, and in no other, are turned to the functions here: its entries for them in the global offset
// table are overwritten. What is small, and what was allocated before, is glibc's as ever.
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

namespace {

constexpr size_t kLarge = size_t{256} << 10;  // smaller blocks are glibc's
constexpr size_t kGrain = size_t{64} << 10;   // every block begins at a multiple: how free knows that it may be one
constexpr size_t kHuge = size_t{2} << 20;     // a huge page
constexpr size_t kKeptAtLeast = size_t{256} << 20;

size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

class LargeBlocks {
 public:
  void* take(size_t bytes) {
    const size_t size = rounded(bytes, bytes >= kHuge ? kHuge : kGrain);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      auto found = by_size_.lower_bound(size);
      if (found != by_size_.end() && found->first <= size + size / 8) {
        auto kept = found->second;
        const Block block = *kept;
        by_size_.erase(found);
        kept_.erase(kept);
        kept_bytes_ -= block.size;
        return given(block);
      }
    }
    void* data = mapped(size);
    if (!data) return nullptr;
    std::lock_guard<std::mutex> lock(mutex_);
    return given({data, size});
  }

  // Whether `data` is a block of these.
  bool give_back(void* data) {
    std::list<Block> drop;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      auto found = taken_.find(data);
      if (found == taken_.end()) return false;
      const Block block{data, found->second};
      taken_.erase(found);
      taken_bytes_ -= block.size;
      kept_.push_back(block);
      by_size_.emplace(block.size, std::prev(kept_.end()));
      kept_bytes_ += block.size;
      // A little more may lie idle than was ever in use at once; then what was freed first goes back to the kernel.
      while (kept_bytes_ > std::max(most_taken_ + most_taken_ / 4, kKeptAtLeast)) {
        auto oldest = kept_.begin();
        auto range = by_size_.equal_range(oldest->size);
        for (auto i = range.first; i != range.second; ++i)
          if (i->second == oldest) {
            by_size_.erase(i);
            break;
          }
        kept_bytes_ -= oldest->size;
        drop.splice(drop.end(), kept_, oldest);
      }
    }
    for (const Block& block : drop) munmap(block.data, block.size);
    return true;
  }

  void state(uint64_t* taken, uint64_t* kept) {
    std::lock_guard<std::mutex> lock(mutex_);
    *taken = taken_bytes_;
    *kept = kept_bytes_;
  }

 private:
  struct Block {
    void* data;
    size_t size;
  };

  void* given(const Block& block) {
    taken_.emplace(block.data, block.size);
    taken_bytes_ += block.size;
    most_taken_ = std::max(most_taken_, taken_bytes_);
    return block.data;
  }

  static void* mapped(size_t size) {
    const size_t align = size >= kHuge ? kHuge : kGrain;
    void* all = mmap(nullptr, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(all), at = rounded(begin, align);
    if (at > begin) munmap(all, at - begin);
    if (begin + align > at) munmap(reinterpret_cast<void*>(at + size), begin + align - at);
    void* data = reinterpret_cast<void*>(at);
    if (size >= kHuge) madvise(data, size, MADV_HUGEPAGE);  // an advice: where it is refused, small pages serve
    return data;
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> taken_;
  std::list<Block> kept_;  // the one that was freed first in front
  std::multimap<size_t, std::list<Block>::iterator> by_size_;
  size_t taken_bytes_ = 0, kept_bytes_ = 0, most_taken_ = 0;
};

LargeBlocks& blocks() {
  static LargeBlocks* one = new LargeBlocks();  // outlives every thread
  return *one;
}

int take_aligned(void** out, size_t align, size_t bytes) {
  if (bytes >= kLarge && align <= kGrain)
    if (void* data = blocks().take(bytes)) {
      *out = data;
      return 0;
    }
  return posix_memalign(out, align, bytes);
}

void give_back(void* data) {
  if (data && reinterpret_cast<uintptr_t>(data) % kGrain == 0 && blocks().give_back(data)) return;
  std::free(data);
}

// Overwrites the entries of `names` in the global offset table of one library.
struct Search {
  const char* library;
  int found;
};

// Pages of a library that the loader made read-only once it had relocated them (RELRO).
struct Sealed {
  uintptr_t begin = 0, end = 0;
};

bool overwrite(void** entry, void* target, const Sealed& sealed) {
  const uintptr_t page = sysconf(_SC_PAGESIZE), begin = reinterpret_cast<uintptr_t>(entry) / page * page;
  if (mprotect(reinterpret_cast<void*>(begin), page, PROT_READ | PROT_WRITE)) return false;
  __atomic_store_n(entry, target, __ATOMIC_RELEASE);
  // Others stay writable: neighbours in the page may be bound lazily.
  if (begin >= sealed.begin / page * page && begin + page <= sealed.end / page * page)
    mprotect(reinterpret_cast<void*>(begin), page, PROT_READ);
  return true;
}

int visit(dl_phdr_info* info, size_t, void* given) {
  auto& search = *static_cast<Search*>(given);
  if (!info->dlpi_name || !std::strstr(info->dlpi_name, search.library)) return 0;
  const ElfW(Dyn)* dynamic = nullptr;
  Sealed sealed;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(begin);
    if (info->dlpi_phdr[i].p_type == PT_GNU_RELRO) sealed = {begin, begin + info->dlpi_phdr[i].p_memsz};
  }
  if (!dynamic) return 0;
  const ElfW(Sym)* symbols = nullptr;
  const char* strings = nullptr;
  const ElfW(Rela)* tables[2] = {nullptr, nullptr};
  size_t bytes[2] = {0, 0};
  for (; dynamic->d_tag != DT_NULL; ++dynamic) switch (dynamic->d_tag) {
      case DT_SYMTAB: symbols = reinterpret_cast<const ElfW(Sym)*>(dynamic->d_un.d_ptr); break;
      case DT_STRTAB: strings = reinterpret_cast<const char*>(dynamic->d_un.d_ptr); break;
      case DT_JMPREL: tables[0] = reinterpret_cast<const ElfW(Rela)*>(dynamic->d_un.d_ptr); break;
      case DT_PLTRELSZ: bytes[0] = dynamic->d_un.d_val; break;
      case DT_RELA: tables[1] = reinterpret_cast<const ElfW(Rela)*>(dynamic->d_un.d_ptr); break;
      case DT_RELASZ: bytes[1] = dynamic->d_un.d_val; break;
    }
  if (!symbols || !strings) return 0;
  // `free` first: a block of ours must never reach glibc's.
  const struct {
    const char* name;
    void* target;
  } turned[] = {{"free", reinterpret_cast<void*>(&give_back)}, {"posix_memalign", reinterpret_cast<void*>(&take_aligned)}};
  for (const auto& one : turned) {
    int entries = 0;
    for (int t = 0; t < 2; ++t)
      for (size_t i = 0; tables[t] && i < bytes[t] / sizeof(ElfW(Rela)); ++i) {
        const ElfW(Rela)& r = tables[t][i];
        const auto type = ELF64_R_TYPE(r.r_info);
        if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_64) continue;
        if (std::strcmp(strings + symbols[ELF64_R_SYM(r.r_info)].st_name, one.name)) continue;
        if (!overwrite(reinterpret_cast<void**>(info->dlpi_addr + r.r_offset), one.target, sealed)) return 1;
        ++entries;
      }
    if (!entries) return 1;
  }
  search.found = 1;
  return 1;
}

}  // namespace

// Turns the allocations of the loaded library whose file name contains `library`; 1 if it was done.
extern "C" __attribute__((visibility("default"))) int kerasoft_keep_large_blocks(const char* library) {
  Search search{library, 0};
  dl_iterate_phdr(visit, &search);
  return search.found;
}

// Bytes in use and bytes kept for the next call.
extern "C" __attribute__((visibility("default"))) void kerasoft_large_blocks(uint64_t* taken, uint64_t* kept) {
  blocks().state(taken, kept);
}
