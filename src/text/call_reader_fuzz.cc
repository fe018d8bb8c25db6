// The text of a call, whole or cut: no call, or a name and arguments that are a JSON object.
#include "base/check.h"
#include "text/call_reader.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  static const std::unordered_map<std::string, json::object> parameters = {
      {"f", json::parse(R"({"properties":{"a":{"type":"integer"},"b":{"type":"string"},
                            "c":{"type":"array","items":{"type":"number"}},"d":{"type":"boolean"},
                            "e":{"type":"object","properties":{"a":{"type":"string"}}}}})")
                .as_object()}};
  if (size == 0) return 0;
  // Valid UTF-8 but for the quote marks, as the parser hands it over; ` stands for a mark.
  std::string text = ToValidUtf8({reinterpret_cast<const char*>(data) + 1, size - 1});
  for (char& c : text)
    if (c == '`') c = kQuoteMark;
  const auto call = ReadCall(text, parameters, data[0] % 2 != 0);
  if (!call) return 0;
  const auto arguments = ParseJson(call->arguments, "arguments");
  CHECK(arguments.ok() && arguments.value().is_object(), "{}", call->arguments);
  CHECK(ToValidUtf8(call->name) == call->name, "name");
  return 0;
}
