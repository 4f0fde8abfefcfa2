// Rows of tables that lie anywhere in memory: fetched ahead of use, cut among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel.h"

namespace kerasoft {

constexpr int64_t kLine = 16;  // floats of a cache line

template <bool write = false>
inline void fetch(const float* row, int64_t width) {
  for (int64_t c = 0; c < width; c += kLine) __builtin_prefetch(row + c, write, write ? 2 : 1);
}

// How many parts rows of `width` floats are cut into; one below `least` floats.
inline int64_t parts_of(ffi::ThreadPool& pool, int64_t rows, int64_t width, int64_t least = 16384) {
  return rows * width < least ? 1 : std::min<int64_t>(rows, thread_count(pool) * 4);
}

// body(i) for i = 0 .. rows - 1, cut among threads.
template <typename Body>
void for_rows(ffi::ThreadPool& pool, int64_t rows, int64_t width, const Body& body) {
  const int64_t parts = parts_of(pool, rows, width);
  parallel_for(pool, parts, [&](int64_t part) {
    Range r = range_of(rows, parts, part);
    for (int64_t i = r.begin; i < r.end; ++i) body(i);
  });
}

// The row of a table of `count` rows that an id names: negative ones count from the end; -1 outside.
inline int64_t row_of(int64_t id, int64_t count) {
  if (id < 0) id += count;
  return id >= 0 && id < count ? id : -1;
}

}  // namespace kerasoft
