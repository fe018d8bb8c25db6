#include "text/template_values.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace lapidary::jinja {
namespace {

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

struct CodePoint {
  uint32_t value = 0;
  size_t size = 1;
};

// The text is valid UTF-8 (the JSON parser checked it).
CodePoint CodePointAt(std::string_view text, size_t at) {
  const auto byte = static_cast<uint8_t>(text[at]);
  const size_t size = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
  if (size == 1 || at + size > text.size()) return {byte, 1};
  uint32_t value = byte & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i)
    value = value << 6 | (static_cast<uint8_t>(text[at + i]) & 0x3fu);
  return {value, size};
}

bool IsSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

uint32_t Lower(uint32_t c) {
  if ((c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7) ||
      (c >= 0x391 && c <= 0x3a9 && c != 0x3a2) || (c >= 0x410 && c <= 0x42f))
    return c + 32;
  return c >= 0x400 && c <= 0x40f ? c + 80 : c;
}

std::u32string SortKey(std::string_view text) {
  std::u32string key;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    key += static_cast<char32_t>(Lower(c.value));
    at += c.size;
  }
  return key;
}

// Python's repr: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
std::string PrintDouble(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto scientific =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (number != 0 && (exponent < -4 || exponent >= 16)) return text;
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed);
  std::string plain(buffer, fixed.ptr);
  if (plain.find('.') == std::string::npos) plain += ".0";
  return plain;
}

std::string ReprString(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    if (c.value == '\n')
      out += "\\n";
    else if (c.value == '\r')
      out += "\\r";
    else if (c.value == '\t')
      out += "\\t";
    else if (c.value == '\\' || c.value == static_cast<uint32_t>(quote))
      (out += '\\') += text[at];
    else if (c.value < 32 || (c.value >= 127 && c.value <= 160) || c.value == 0xad)
      out += fmt::format("\\x{:02x}", c.value);
    else
      out += text.substr(at, c.size);
    at += c.size;
  }
  return out + quote;
}

}  // namespace

Value Get(Value value, std::string_view key) {
  return IsObject(value) ? value->get_object().if_contains(key) : nullptr;
}

bool IsTrue(Value value) {
  if (value == nullptr || value->is_null()) return false;
  if (value->is_bool()) return value->get_bool();
  if (value->is_string()) return !value->get_string().empty();
  if (value->is_array()) return !value->get_array().empty();
  if (value->is_object()) return !value->get_object().empty();
  if (value->is_double()) return value->get_double() < 0 || value->get_double() > 0;
  return value->is_int64() ? value->get_int64() != 0 : value->get_uint64() != 0;
}

bool IsString(Value value) { return value != nullptr && value->is_string(); }
bool IsObject(Value value) { return value != nullptr && value->is_object(); }
bool IsArray(Value value) { return value != nullptr && value->is_array(); }
bool IsNone(Value value) { return value != nullptr && value->is_null(); }
bool Equals(Value value, std::string_view text) {
  return IsString(value) && View(value->get_string()) == text;
}

std::string Print(Value value) {
  if (value == nullptr) return "";
  return value->is_string() ? std::string(View(value->get_string())) : Repr(*value);
}

std::string Repr(const json::value& value) {
  if (value.is_null()) return "None";
  if (value.is_bool()) return value.get_bool() ? "True" : "False";
  if (value.is_int64()) return std::to_string(value.get_int64());
  if (value.is_uint64()) return std::to_string(value.get_uint64());
  if (value.is_double()) return PrintDouble(value.get_double());
  if (value.is_string()) return ReprString(View(value.get_string()));
  std::string out;
  if (value.is_array()) {
    for (const json::value& item : value.get_array()) out += (out.empty() ? "" : ", ") + Repr(item);
    return "[" + out + "]";
  }
  for (const auto& member : value.get_object())
    out += (out.empty() ? "" : ", ") + ReprString({member.key().data(), member.key().size()}) +
           ": " + Repr(member.value());
  return "{" + out + "}";
}

std::string Upper(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  return text;
}

std::string_view Trim(std::string_view text) {
  size_t begin = 0, end = 0;
  bool seen = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    if (!IsSpace(c.value)) {
      if (!seen) begin = at;
      seen = true;
      end = at + c.size;
    }
    at += c.size;
  }
  return text.substr(begin, end - begin);
}

std::vector<const json::key_value_pair*> Sorted(const json::object& object) {
  std::vector<std::pair<std::u32string, const json::key_value_pair*>> keyed;
  for (const auto& member : object)
    keyed.emplace_back(SortKey({member.key().data(), member.key().size()}), &member);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const json::key_value_pair*> out;
  out.reserve(keyed.size());
  for (const auto& [key, member] : keyed) out.push_back(member);
  return out;
}

}  // namespace lapidary::jinja
