// Any reply, as text with control strings or as any ids: valid UTF-8 out, arguments that are JSON.
#include <map>

#include "base/check.h"
#include "text/reply_parser.h"

namespace lapidary {
namespace {

class Checker {
 public:
  void Take(const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      CHECK(ToValidUtf8(delta.text) == delta.text, "not UTF-8");
      if (delta.kind == ReplyDelta::kToolCall) {
        CHECK(delta.index == static_cast<int>(arguments_.size()), "index {}", delta.index);
        arguments_.emplace_back();
      } else {
        CHECK(!delta.text.empty(), "an empty piece");
      }
      if (delta.kind == ReplyDelta::kToolArguments)
        arguments_.at(static_cast<size_t>(delta.index)) += delta.text;
    }
  }
  void Finish() const {
    for (const std::string& text : arguments_) {
      const auto arguments = ParseJson(text, "arguments");
      CHECK(arguments.ok() && arguments.value().is_object(), "{}", text);
    }
  }

 private:
  std::vector<std::string> arguments_;
};

}  // namespace
}  // namespace lapidary

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  static const Tokenizer tokenizer =
      Tokenizer::Load(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble").value();
  static const json::array tools =
      json::parse(R"([{"type":"function","function":{"name":"f","parameters":{"properties":
                    {"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"array"}}}}}])")
          .as_array();
  if (size == 0) return 0;
  std::vector<int32_t> ids;
  if (data[0] % 2 == 0)
    ids = tokenizer.Encode({reinterpret_cast<const char*>(data) + 1, size - 1});
  else
    for (size_t i = 1; i + 1 < size; i += 2) ids.push_back((data[i] << 8 | data[i + 1]) - 8);
  ReplyParser parser(tokenizer, ReplyTokens::Of(tokenizer), DeclaredTools::Of(&tools),
                     data[0] % 4 >= 2);
  Checker checker;
  for (const int32_t id : ids) checker.Take(parser.Push(id));
  checker.Take(parser.Finish());
  checker.Finish();
  return 0;
}
