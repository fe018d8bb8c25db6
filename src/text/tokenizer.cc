#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace lapidary {
namespace {

// A piece's ids are remembered within one Encode while the piece is short.
constexpr size_t kMaxCachedPiece = 64;

std::string ReplaceSpaces(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) {
    if (c == ' ')
      out += kSpaceMark;
    else
      out += c;
  }
  return out;
}

}  // namespace

std::optional<int32_t> Tokenizer::Find(std::string_view content) const {
  const int32_t id = index_.Find(content, tokens_);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

std::string_view Tokenizer::token(int32_t id) const {
  return Valid(id) ? std::string_view(tokens_[static_cast<size_t>(id)]) : std::string_view();
}

bool Tokenizer::is_special(int32_t id) const {
  return Valid(id) && special_[static_cast<size_t>(id)] != 0;
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  if (!Valid(id)) return "";
  if (const int16_t byte = byte_of_[static_cast<size_t>(id)]; byte >= 0)
    return std::string(1, static_cast<char>(byte));
  const std::string& token = tokens_[static_cast<size_t>(id)];
  std::string text;
  for (size_t at = 0; at < token.size();) {
    const bool mark = token.compare(at, kSpaceMark.size(), kSpaceMark) == 0;
    text += mark ? ' ' : token[at];
    at += mark ? kSpaceMark.size() : 1;
  }
  return text;
}

// A border is safe where no merge makes an entry that spans it. Merges of byte tokens or <unk>, and
// <unk> that could fuse over a border, leave nothing proved.
void Tokenizer::ProveBorders(const std::vector<Bpe::Merge>& merges) {
  const bool all_bytes =
      byte_fallback_ && std::none_of(byte_ids_, byte_ids_ + 256, [](int32_t id) { return id < 0; });
  const bool can_fuse = !all_bytes && unk_id_ >= 0 && fuse_unk_;
  splits_at_newline_ = !can_fuse;
  splits_at_space_ = replaces_space_ && !can_fuse;
  std::vector<uint8_t> text(tokens_.size(), 1);
  for (const int32_t id : byte_ids_)
    if (id >= 0) text[static_cast<size_t>(id)] = 0;
  if (unk_id_ >= 0) text[static_cast<size_t>(unk_id_)] = 0;
  for (const Bpe::Merge& merge : merges) {
    if (text[static_cast<size_t>(merge.left)] == 0 || text[static_cast<size_t>(merge.right)] == 0)
      splits_at_newline_ = splits_at_space_ = false;
    const std::string& token = tokens_[static_cast<size_t>(merge.result)];
    const auto newlines = static_cast<size_t>(std::count(token.begin(), token.end(), '\n'));
    if (newlines != 0 && newlines != token.size()) splits_at_newline_ = false;
    // Marks may lead an entry, but none may follow another character.
    size_t text_begin = 0;
    while (token.compare(text_begin, kSpaceMark.size(), kSpaceMark) == 0)
      text_begin += kSpaceMark.size();
    if (token.find(kSpaceMark, text_begin) != std::string::npos) splits_at_space_ = false;
  }
}

size_t Tokenizer::PieceEnd(std::string_view text, size_t begin) const {
  if (!splits_at_newline_ && !splits_at_space_) return text.size();
  const auto is_mark = [&](size_t at) {
    return text.compare(at, kSpaceMark.size(), kSpaceMark) == 0;
  };
  size_t at = begin;
  if (splits_at_newline_ && text[at] == '\n') {
    while (at < text.size() && text[at] == '\n') ++at;
    return at;
  }
  if (splits_at_space_)
    while (at < text.size() && is_mark(at)) at += kSpaceMark.size();
  while (at < text.size()) {
    if (splits_at_newline_ && text[at] == '\n') break;
    if (splits_at_space_ && text[at] == kSpaceMark[0] && is_mark(at)) break;
    ++at;
  }
  return at;
}

void Tokenizer::EncodePiece(std::string_view piece, std::vector<int32_t>& ids) const {
  const size_t first = ids.size();
  bool last_is_unk = false;
  for (size_t at = 0; at < piece.size();) {
    const size_t length = std::min(CharacterBytes(piece.substr(at)), piece.size() - at);
    const std::string_view character = piece.substr(at, length);
    at += length;
    if (const auto id = Find(character)) {
      ids.push_back(*id);
      last_is_unk = false;
      continue;
    }
    bool has_bytes = byte_fallback_;
    for (const char c : character) has_bytes = has_bytes && byte_ids_[static_cast<uint8_t>(c)] >= 0;
    if (has_bytes) {
      for (const char c : character) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      last_is_unk = false;
    } else if (unk_id_ >= 0 && !(fuse_unk_ && last_is_unk)) {
      ids.push_back(unk_id_);
      last_is_unk = true;
    }
  }
  bpe_.Apply(ids, first);
}

void Tokenizer::EncodeText(std::string_view text, std::vector<int32_t>& ids) const {
  const std::string normalized = replaces_space_ ? ReplaceSpaces(text) : std::string(text);
  std::unordered_map<std::string_view, std::pair<uint32_t, uint32_t>> cache;
  for (size_t begin = 0; begin < normalized.size();) {
    const size_t end = PieceEnd(normalized, begin);
    const std::string_view piece = std::string_view(normalized).substr(begin, end - begin);
    begin = end;
    if (piece.size() > kMaxCachedPiece) {
      EncodePiece(piece, ids);
      continue;
    }
    const auto [entry, is_new] = cache.try_emplace(piece);
    auto& [offset, count] = entry->second;
    if (is_new) {
      offset = static_cast<uint32_t>(ids.size());
      EncodePiece(piece, ids);
      count = static_cast<uint32_t>(ids.size()) - offset;
    } else {
      for (uint32_t i = 0; i < count; ++i) ids.push_back(ids[offset + i]);
    }
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view raw, Specials specials) const {
  const std::string text = ToValidUtf8(raw);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  size_t text_begin = 0;
  const auto flush = [&](size_t end) {
    if (end > text_begin)
      EncodeText(std::string_view(text).substr(text_begin, end - text_begin), ids);
  };
  if (specials == Specials::kMatch && !added_.empty()) {
    std::array<bool, 256> starts{};
    for (const Added& added : added_) starts[static_cast<uint8_t>(added.content[0])] = true;
    for (size_t at = 0; at < text.size(); ++at) {
      if (!starts[static_cast<uint8_t>(text[at])]) continue;
      const auto match = std::find_if(added_.begin(), added_.end(), [&](const Added& added) {
        return text[at] == added.content[0] &&
               text.compare(at, added.content.size(), added.content) == 0;
      });
      if (match == added_.end()) continue;
      flush(at);
      ids.push_back(match->id);
      at += match->content.size() - 1;
      text_begin = at + 1;
    }
  }
  flush(text.size());
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids)
    if (!skip_special || !is_special(id)) bytes += TokenBytes(id);
  return ToValidUtf8(bytes);
}

std::string Detokenizer::Push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  return utf8_.Push(tokenizer_->TokenBytes(id));
}

}  // namespace lapidary
