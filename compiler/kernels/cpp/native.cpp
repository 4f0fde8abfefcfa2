// The table of this library's XLA FFI handlers, read by kerasoft.compiler.kernels.bridge.
#include "registry.h"

extern "C" __attribute__((visibility("default"))) const kerasoft::Target* kerasoft_native_targets() {
  static const std::vector<kerasoft::Target> table = [] {
    auto all = kerasoft::targets();
    all.push_back({nullptr, nullptr});
    return all;
  }();
  return table.data();
}
