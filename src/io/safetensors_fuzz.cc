// A safetensors header of any bytes: parsed or refused, and what is parsed lies inside the file.
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto tensors = ParseSafetensorsHeader(bytes, size, "fuzz");
  if (!tensors.ok()) return 0;
  for (const auto& [name, entry] : tensors.value())
    CHECK(entry.offset <= size && entry.bytes <= size - entry.offset, "{}", name);
  return 0;
}
