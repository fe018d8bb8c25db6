#include "text/call_reader.h"

#include <algorithm>
#include <cmath>

namespace lapidary {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view TrimSpace(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// A number of JSON that a double holds, so that its digits can be copied.
bool IsNumber(std::string_view text) {
  const auto value = ParseJson(text, "number");
  return value.ok() && value.value().is_number() &&
         std::isfinite(value.value().to_number<double>());
}

const json::object* Member(const json::object* schema, std::string_view name) {
  const json::value* value = schema != nullptr ? schema->if_contains(name) : nullptr;
  return value != nullptr ? value->if_object() : nullptr;
}

// The schema allows text and nothing else a bare word could be.
bool WantsText(const json::object* schema) {
  const json::value* type = schema != nullptr ? schema->if_contains("type") : nullptr;
  if (type == nullptr) return false;
  if (type->is_string()) return type->get_string() == "string";
  if (!type->is_array()) return false;
  bool text = false;
  for (const json::value& one : type->get_array()) {
    if (one == "number" || one == "integer" || one == "boolean") return false;
    text = text || one == "string";
  }
  return text;
}

enum class Outcome : uint8_t { kDone, kCut, kBad };

class CallReader {
 public:
  explicit CallReader(std::string_view text) : text_(text) {}

  Outcome ReadValue(const json::object* schema, int depth) {
    SkipSpace();
    if (AtEnd()) return Outcome::kCut;
    const char first = text_[at_];
    if (first == kQuoteMark) return ReadString();
    if (first == '{') return ReadObject(schema, depth);
    if (first == '[') return ReadArray(schema, depth);
    return ReadBare(schema);
  }

  bool OnlySpaceLeft() {
    SkipSpace();
    return AtEnd();
  }
  std::string TakeJson() { return std::move(json_); }

 private:
  bool AtEnd() const { return at_ == text_.size(); }
  void SkipSpace() { at_ = std::min(text_.find_first_not_of(kSpace, at_), text_.size()); }
  void WriteString(std::string_view text) { json_ += json::serialize(json::string(text)); }

  // A string that was cut is kept as far as it goes.
  Outcome ReadString() {
    const size_t end = std::min(text_.find(kQuoteMark, at_ + 1), text_.size());
    WriteString(text_.substr(at_ + 1, end - at_ - 1));
    at_ = std::min(end + 1, text_.size());
    return end < text_.size() ? Outcome::kDone : Outcome::kCut;
  }

  Outcome ReadBare(const json::object* schema) {
    const size_t end = text_.find_first_of(",}]\xff", at_);
    if (end == std::string_view::npos) {
      at_ = text_.size();
      return Outcome::kCut;
    }
    const std::string_view word = TrimSpace(text_.substr(at_, end - at_));
    at_ = end;
    if (word.empty()) return Outcome::kBad;
    if (word == "null" || word == "None")
      json_ += "null";
    else if (!WantsText(schema) && (word == "true" || word == "false" || IsNumber(word)))
      json_ += word;
    else
      WriteString(word);
    return Outcome::kDone;
  }

  // The key and its colon; kCut if the text ends before a value could begin.
  Outcome ReadKey(std::string& key) {
    if (text_[at_] == kQuoteMark) {
      const size_t end = text_.find(kQuoteMark, at_ + 1);
      if (end == std::string_view::npos) return Outcome::kCut;
      key = text_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
      SkipSpace();
      if (AtEnd()) return Outcome::kCut;
      return text_[at_++] == ':' ? Outcome::kDone : Outcome::kBad;
    }
    const size_t end = text_.find_first_of(":,{}[]\xff", at_);
    if (end == std::string_view::npos) return Outcome::kCut;
    if (text_[end] != ':') return Outcome::kBad;
    key = TrimSpace(text_.substr(at_, end - at_));
    at_ = end + 1;
    return key.empty() ? Outcome::kBad : Outcome::kDone;
  }

  Outcome ReadObject(const json::object* schema, int depth) {
    const json::object* properties = Member(schema, "properties");
    return ReadMembers('{', '}', depth, [&](bool first) {
      std::string key;
      const Outcome outcome = ReadKey(key);
      if (outcome != Outcome::kDone) return outcome;
      if (!first) json_ += ',';
      WriteString(key);
      json_ += ':';
      return ReadValue(Member(properties, key), depth + 1);
    });
  }

  Outcome ReadArray(const json::object* schema, int depth) {
    const json::object* items = Member(schema, "items");
    return ReadMembers('[', ']', depth, [&](bool first) {
      if (!first) json_ += ',';
      return ReadValue(items, depth + 1);
    });
  }

  template <typename ReadMember>
  Outcome ReadMembers(char open, char close, int depth, ReadMember read_member) {
    if (depth >= kMaxCallDepth) return Outcome::kBad;
    ++at_;
    json_ += open;
    for (bool first = true;; first = false) {
      SkipSpace();
      if (AtEnd()) return Close(close, Outcome::kCut);
      if (text_[at_] == close) {
        ++at_;
        return Close(close, Outcome::kDone);
      }
      const size_t before = json_.size();
      const Outcome outcome = read_member(first);
      if (outcome == Outcome::kBad) return outcome;
      if (outcome == Outcome::kCut) {
        // A member whose value never came leaves a comma or a colon: take it back.
        if (json_.back() == ':' || json_.back() == ',') json_.resize(before);
        return Close(close, Outcome::kCut);
      }
      SkipSpace();
      if (AtEnd()) return Close(close, Outcome::kCut);
      if (text_[at_] == ',')
        ++at_;
      else if (text_[at_] != close)
        return Outcome::kBad;
    }
  }

  Outcome Close(char close, Outcome outcome) {
    json_ += close;
    return outcome;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string json_;
};

}  // namespace

std::optional<Call> ReadCall(std::string_view text,
                             const std::unordered_map<std::string, json::object>& parameters,
                             bool is_cut) {
  constexpr std::string_view kPrefix = "call:";
  text = TrimSpace(text);
  if (!text.starts_with(kPrefix)) return std::nullopt;
  text.remove_prefix(kPrefix.size());
  const size_t brace = text.find('{');
  if (brace == std::string_view::npos) return std::nullopt;
  Call call;
  call.name = TrimSpace(text.substr(0, brace));
  if (call.name.empty() || call.name.find(kQuoteMark) != std::string::npos) return std::nullopt;
  const auto schema = parameters.find(call.name);
  CallReader reader(text.substr(brace));
  const Outcome outcome =
      reader.ReadValue(schema != parameters.end() ? &schema->second : nullptr, 0);
  if (outcome == Outcome::kBad || (outcome == Outcome::kCut && !is_cut)) return std::nullopt;
  if (outcome == Outcome::kDone && !reader.OnlySpaceLeft()) return std::nullopt;
  call.arguments = reader.TakeJson();
  return call;
}

}  // namespace lapidary
