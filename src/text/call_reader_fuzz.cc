// The text of a call, at once and in pieces, whole or cut: no call, or a name and arguments that
// are a JSON object, the same of both.
#include "base/check.h"
#include "text/call_reader.h"
#include "text/utf8.h"

namespace lapidary {
namespace {

// A call of two texts, which its bytes divide.
struct Parts {
  std::string json, content;
};

Parts ReadAll(CallReader& reader, std::string_view first, std::string_view second, bool is_cut) {
  Parts parts;
  for (const std::string_view text : {first, second}) {
    const size_t read = reader.Push(text);
    parts.json += reader.TakeJson();
    if (reader.is_broken()) parts.content += reader.TakeUnread();
    if (read < text.size()) CHECK(reader.is_over() || reader.is_broken(), "stopped at {}", read);
    parts.content += text.substr(read);
  }
  reader.End(is_cut);
  parts.json += reader.TakeJson();
  if (reader.is_broken()) parts.content += reader.TakeUnread();
  return parts;
}

}  // namespace
}  // namespace lapidary

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
  size_t border = text.empty() ? 0 : data[0] / 2 % text.size();
  while (border < text.size() && (text[border] & 0xc0) == 0x80) ++border;  // whole characters
  const bool is_cut = data[0] % 2 != 0;
  CallReader whole(parameters), divided(parameters);
  const Parts parts = ReadAll(whole, text, {}, is_cut);
  const Parts again = ReadAll(divided, std::string_view(text).substr(0, border),
                              std::string_view(text).substr(border), is_cut);
  CHECK(parts.json == again.json && parts.content == again.content, "{} | {}", parts.json,
        again.json);
  CHECK(whole.has_begun() == divided.has_begun() && whole.is_broken() == divided.is_broken(),
        "divided");
  if (!whole.has_begun()) {
    CHECK(parts.json.empty() && parts.content == text, "no call, and {}", parts.content);
    return 0;
  }
  const auto arguments = ParseJson(parts.json, "arguments");
  CHECK(arguments.ok() && arguments.value().is_object(), "{}", parts.json);
  CHECK(ToValidUtf8(whole.name()) == whole.name(), "name");
  return 0;
}
