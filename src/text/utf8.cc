#include "text/utf8.h"

#include <cstdint>

namespace lapidary {
namespace {

struct Lead {
  int length;  // of the whole character, 0: no lead byte
  uint8_t second_low, second_high;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Bytes of the valid beginning of a character at `text`, at most its length.
int ValidPrefix(std::string_view text, const Lead& lead) {
  int valid = 1;
  while (valid < lead.length && static_cast<size_t>(valid) < text.size()) {
    const auto byte = static_cast<uint8_t>(text[static_cast<size_t>(valid)]);
    const uint8_t low = valid == 1 ? lead.second_low : 0x80,
                  high = valid == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) break;
    ++valid;
  }
  return valid;
}

}  // namespace

std::string Utf8Assembler::Push(std::string_view bytes) {
  std::string joined;
  if (!pending_.empty()) {
    joined = std::move(pending_) + std::string(bytes);
    pending_.clear();
    bytes = joined;
  }
  std::string out;
  out.reserve(bytes.size());
  size_t at = 0;
  while (at < bytes.size()) {
    const Lead lead = LeadOf(static_cast<uint8_t>(bytes[at]));
    if (lead.length == 0) {
      out += kReplacementCharacter;
      ++at;
      continue;
    }
    const std::string_view rest = bytes.substr(at);
    const int valid = ValidPrefix(rest, lead);
    if (valid == lead.length) {
      out += rest.substr(0, static_cast<size_t>(valid));
    } else if (static_cast<size_t>(valid) == rest.size()) {
      pending_ = rest;
      return out;
    } else {
      out += kReplacementCharacter;
    }
    at += static_cast<size_t>(valid);
  }
  return out;
}

std::string Utf8Assembler::Finish() {
  if (pending_.empty()) return "";
  pending_.clear();
  return std::string(kReplacementCharacter);
}

std::string ToValidUtf8(std::string_view bytes) {
  Utf8Assembler assembler;
  std::string text = assembler.Push(bytes);
  return text + assembler.Finish();
}

size_t CharacterBytes(std::string_view text) {
  const int length = LeadOf(static_cast<uint8_t>(text[0])).length;
  return length == 0 ? 1 : static_cast<size_t>(length);
}

}  // namespace lapidary
