// Any tokens: the pieces of incremental decoding are valid UTF-8 and join to the one-shot text.
#include "base/check.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  static const Tokenizer tokenizer =
      Tokenizer::Load(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble").value();
  if (size == 0) return 0;
  const bool skip_special = data[0] % 2 != 0;
  std::vector<int32_t> ids;
  for (size_t i = 1; i + 1 < size; i += 2) ids.push_back((data[i] << 8 | data[i + 1]) - 8);
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string joined;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.Push(id);
    CHECK(ToValidUtf8(piece) == piece, "half a character after {}", id);
    joined += piece;
  }
  joined += detokenizer.Finish();
  CHECK(joined == tokenizer.Decode(ids, skip_special), "pieces differ from the whole");
  return 0;
}
