#include "text/call_reader.h"

#include <algorithm>
#include <cmath>

namespace lapidary {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kPrefix = "call:";
constexpr size_t kMaxWordBytes = 64 << 10;

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

std::string Quoted(std::string_view text) { return json::serialize(json::string(text)); }

}  // namespace

size_t CallReader::Push(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && !is_over() && !is_broken()) {
    const size_t begin = at;
    wrote_ = false;
    if (const std::string_view ends = WordEnds(); !ends.empty()) {
      at = std::min(text.find_first_of(ends, at), text.size());
      word_ += text.substr(begin, at - begin);
      if (word_.size() > kMaxWordBytes)
        CloseAll(Place::kBroken);
      else if (at < text.size() && EndWord(text[at]))
        ++at;
    } else if (place_ == Place::kString) {
      at = std::min(text.find(kQuoteMark, at), text.size());
      const std::string quoted = Quoted(text.substr(begin, at - begin));
      json_ += std::string_view(quoted).substr(1, quoted.size() - 2);
      wrote_ = true;
      if (at < text.size()) ++at, json_ += '"', place_ = Place::kNext;
    } else if (kSpace.find(text[at]) != std::string_view::npos || Take(text[at])) {
      ++at;
    }
    if (wrote_)
      unread_.clear();
    else
      unread_ += text.substr(begin, at - begin);
  }
  return at;
}

void CallReader::End(bool is_cut) {
  if (is_over() || is_broken()) return;
  is_cut = is_cut && place_ != Place::kHead;
  has_begun_ = has_begun_ || is_cut;
  CloseAll(is_cut ? Place::kOver : Place::kBroken);
}

std::string_view CallReader::WordEnds() const {
  switch (place_) {
    case Place::kHead:
      return "{";
    case Place::kBareKey:
      return ":,{}[]\xff";
    case Place::kQuotedKey:
      return "\xff";
    case Place::kBare:
      return ",}]\xff";
    default:
      return {};
  }
}

bool CallReader::EndWord(char end) {
  const std::string text = std::exchange(word_, {});
  const std::string_view word = TrimSpace(text);
  switch (place_) {
    case Place::kHead:
      return EndHead(word);
    case Place::kBareKey:
      if (end != ':' || word.empty()) return CloseAll(Place::kBroken), false;
      return EndKey(word), true;
    case Place::kQuotedKey:
      word_ = text;
      place_ = Place::kColon;
      return true;
    default:
      return EndBare(word), false;
  }
}

bool CallReader::Take(char c) {
  const bool closes = !frames_.empty() && c == frames_.back().close;
  switch (place_) {
    case Place::kMember:
      if (closes) return Close(), true;
      place_ = c == kQuoteMark ? Place::kQuotedKey : Place::kBareKey;
      return c == kQuoteMark;
    case Place::kColon:
      if (c != ':') return CloseAll(Place::kBroken), false;
      return EndKey(std::exchange(word_, {})), true;
    case Place::kItem:
      if (closes) return Close(), true;
      [[fallthrough]];
    case Place::kValue:
      if (c == '{' || c == '[') return Open(c);
      place_ = Place::kBare;
      if (c != kQuoteMark) return false;
      BeginValue();
      json_ += '"';
      place_ = Place::kString;
      return true;
    case Place::kNext:
      if (closes) return Close(), true;
      if (c != ',') return CloseAll(Place::kBroken), false;
      place_ = frames_.back().close == '}' ? Place::kMember : Place::kItem;
      schema_ = frames_.back().schema;
      return true;
    default:
      return false;
  }
}

bool CallReader::EndHead(std::string_view head) {
  if (head.starts_with(kPrefix)) name_ = TrimSpace(head.substr(kPrefix.size()));
  if (name_.empty() || name_.find(kQuoteMark) != std::string::npos)
    return CloseAll(Place::kBroken), false;
  const auto schema = parameters_->find(name_);
  json_ = '{';
  frames_.push_back(
      {'}', Member(schema != parameters_->end() ? &schema->second : nullptr, "properties")});
  place_ = Place::kMember;
  return true;
}

void CallReader::EndKey(std::string_view key) {
  key_ = Quoted(key) + ":";
  schema_ = Member(frames_.back().schema, key);
  place_ = Place::kValue;
}

void CallReader::EndBare(std::string_view word) {
  if (word.empty()) return CloseAll(Place::kBroken);
  BeginValue();
  if (word == "null" || word == "None")
    json_ += "null";
  else if (!WantsText(schema_) && (word == "true" || word == "false" || IsNumber(word)))
    json_ += word;
  else
    json_ += Quoted(word);
  place_ = Place::kNext;
}

void CallReader::BeginValue() {
  if (!std::exchange(frames_.back().is_first, false)) json_ += ',';
  json_ += std::exchange(key_, {});
  has_begun_ = wrote_ = true;
}

bool CallReader::Open(char first) {
  if (frames_.size() >= kMaxCallDepth) return CloseAll(Place::kBroken), false;
  BeginValue();
  json_ += first;
  if (first == '{') {
    frames_.push_back({'}', Member(schema_, "properties")});
    place_ = Place::kMember;
  } else {
    frames_.push_back({']', Member(schema_, "items")});
    place_ = Place::kItem;
    schema_ = frames_.back().schema;
  }
  return true;
}

void CallReader::Close() {
  json_ += frames_.back().close;
  frames_.pop_back();
  has_begun_ = wrote_ = true;
  place_ = frames_.empty() ? Place::kOver : Place::kNext;
}

// Where text breaks or ends; a key or a bare value that was not over is in no JSON.
void CallReader::CloseAll(Place last) {
  if (place_ == Place::kString) json_ += '"';
  for (; !frames_.empty(); frames_.pop_back()) json_ += frames_.back().close;
  place_ = last;
}

}  // namespace lapidary
