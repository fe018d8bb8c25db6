// config.json of any bytes: refused, or a config whose tensors can be listed and counted.
#include <string_view>

#include "model/config.h"
#include "model/loader.h"
#include "model/tensor_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  const auto config = ParseModelConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!config.ok()) return 0;
  CHECK(config.value().num_layers() > 0, "no layers");
  CHECK(WeightBytes(config.value()) > 0, "no weights");
  return 0;
}
