// tokenizer.json of any bytes: refused, or a tokenizer that encodes and decodes.
#include <string_view>

#include "base/check.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  const std::string_view content(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = Tokenizer::Parse(content, "fuzz");
  if (!tokenizer.ok()) return 0;
  const std::vector<int32_t> ids = tokenizer.value().Encode(content);
  Detokenizer detokenizer(tokenizer.value(), false);
  std::string joined;
  for (const int32_t id : ids) {
    CHECK(id >= 0 && id < tokenizer.value().vocab_size(), "id {}", id);
    joined += detokenizer.Push(id);
  }
  joined += detokenizer.Finish();
  CHECK(joined == tokenizer.value().Decode(ids, false), "pieces differ from the whole");
  return 0;
}
