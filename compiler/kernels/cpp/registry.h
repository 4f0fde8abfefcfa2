// How a file offers an XLA FFI handler: KERASOFT_TARGET("lstm", LstmHandler) at namespace scope.
#pragma once

#include <vector>

namespace kerasoft {

struct Target {
  const char* name;  // the XLA custom call is called kerasoft.<name>
  void* handler;
};

inline std::vector<Target>& targets() {
  static std::vector<Target> table;
  return table;
}

struct Offer {
  Offer(const char* name, void* handler) { targets().push_back({name, handler}); }
};

}  // namespace kerasoft

// Of the sources that the library was built from (sources.py).
extern "C" __attribute__((visibility("default"), weak, used)) const char* kerasoft_sources() { return KERASOFT_SOURCES; }

#define KERASOFT_TARGET(NAME, HANDLER) \
  static const ::kerasoft::Offer offer_##HANDLER(NAME, reinterpret_cast<void*>(HANDLER))
