// Tokenizer: Gemma 4's tokenizer.json (GEMMA4.md 11): SentencePiece-style BPE with byte fallback
// and added tokens. Immutable after loading, shared by all threads.
#ifndef LAPIDARY_TEXT_TOKENIZER_H_
#define LAPIDARY_TEXT_TOKENIZER_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/bpe.h"
#include "text/token_index.h"
#include "text/utf8.h"

namespace lapidary {

// What stands for a space in the vocabulary: U+2581.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

class Tokenizer {
 public:
  // kAsText: control strings are ordinary text, so that a user cannot forge turns.
  enum class Specials : uint8_t { kMatch, kAsText };

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;

  // Reads model_dir/tokenizer.json. Errors name the file and the part that is wrong or not known.
  static Result<Tokenizer> Load(const std::filesystem::path& model_dir);
  static Result<Tokenizer> Parse(std::string_view content, std::string_view where);

  // Ids of the text, without <bos>. Bytes that are not UTF-8 count as U+FFFD.
  std::vector<int32_t> Encode(std::string_view text, Specials specials = Specials::kMatch) const;
  // The text of ids; what is not UTF-8 becomes U+FFFD by maximal subpart. Ids out of range are left
  // out.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  int vocab_size() const { return static_cast<int>(tokens_.size()); }
  // Id of an entry by its exact content.
  std::optional<int32_t> Find(std::string_view content) const;
  // The entry as the vocabulary writes it; empty for an id without one.
  std::string_view token(int32_t id) const;
  bool is_special(int32_t id) const;
  // What the id adds to the output bytes: a byte for <0xNN>, else the entry with U+2581 as a space.
  std::string TokenBytes(int32_t id) const;

 private:
  struct Added {
    std::string content;
    int32_t id;
  };

  friend class TokenizerReader;
  Tokenizer() = default;
  void EncodeText(std::string_view text, std::vector<int32_t>& ids) const;
  void EncodePiece(std::string_view piece, std::vector<int32_t>& ids) const;
  // The end of the piece that starts at `begin`: a border no vocabulary entry crosses, or the end
  // of the text.
  size_t PieceEnd(std::string_view text, size_t begin) const;
  void ProveBorders(const std::vector<Bpe::Merge>& merges);
  bool Valid(int32_t id) const { return id >= 0 && id < vocab_size(); }

  std::vector<std::string> tokens_;
  std::vector<uint8_t> special_;
  std::vector<int16_t> byte_of_;  // 0..255 for <0xNN>, else -1
  TokenIndex index_;
  std::vector<Added> added_;  // longest first
  int32_t byte_ids_[256];
  int32_t unk_id_ = -1;
  bool byte_fallback_ = false, fuse_unk_ = false, replaces_space_ = false;
  bool splits_at_newline_ = false, splits_at_space_ = false;  // proved from the vocabulary
  Bpe bpe_;
};

// Incremental decoding of one reply: joined, its pieces equal Decode of all ids. Never emits half a
// character.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  std::string Push(int32_t id);
  std::string Finish() { return utf8_.Finish(); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  Utf8Assembler utf8_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_TOKENIZER_H_
