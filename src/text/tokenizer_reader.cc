// Reading tokenizer.json: an untrusted file. Whatever part of the pipeline is not Gemma 4's is
// refused by name.
#include <algorithm>
#include <array>
#include <boost/json/monotonic_resource.hpp>

#include "io/json.h"
#include "io/mapped_file.h"
#include "text/tokenizer.h"

namespace lapidary {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 128u << 20;
constexpr int64_t kMaxVocab = 1 << 24;

const json::value* Get(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool IsTrue(const json::object& object, std::string_view key) {
  const json::value* value = Get(object, key);
  return value != nullptr && value->is_bool() && value->get_bool();
}

bool TypeIs(const json::value* value, std::string_view type) {
  if (value == nullptr || !value->is_object()) return false;
  const json::value* found = Get(value->get_object(), "type");
  return found != nullptr && found->is_string() && found->get_string() == type;
}

// Whether the pattern of this part is the plain string `text`.
bool PatternIs(const json::value& part, std::string_view text) {
  const json::value* pattern = Get(part.get_object(), "pattern");
  if (pattern == nullptr || !pattern->is_object()) return false;
  const json::value* string = Get(pattern->get_object(), "String");
  return string != nullptr && string->is_string() && string->get_string() == text;
}

bool IsGemmaDecoder(const json::value& decoder) {
  const json::value* list =
      TypeIs(&decoder, "Sequence") ? Get(decoder.get_object(), "decoders") : nullptr;
  if (list == nullptr || !list->is_array() || list->get_array().size() != 3) return false;
  const json::array& steps = list->get_array();
  if (!TypeIs(&steps[0], "Replace") || !PatternIs(steps[0], kSpaceMark)) return false;
  const json::value* content = Get(steps[0].get_object(), "content");
  return content != nullptr && *content == " " && TypeIs(&steps[1], "ByteFallback") &&
         TypeIs(&steps[2], "Fuse");
}

}  // namespace

class TokenizerReader {
 public:
  explicit TokenizerReader(std::string_view where) : where_(where) {
    std::fill_n(t_.byte_ids_, 256, -1);
  }

  Result<Tokenizer> Read(const json::object& root) {
    const json::value* model = Get(root, "model");
    if (!TypeIs(model, "BPE")) return Bad("model.type must be BPE");
    for (auto step : {&TokenizerReader::ReadPipeline, &TokenizerReader::ReadVocabulary,
                      &TokenizerReader::ReadAdded, &TokenizerReader::ReadMerges})
      if (Status status = (this->*step)(root, model->get_object()); !status.ok())
        return status.error();
    return std::move(t_);
  }

 private:
  Error Bad(const std::string& rule) const {
    return Error{fmt::format("{}: {}", where_, rule), "", ""};
  }

  Status ReadPipeline(const json::object& root, const json::object& model) {
    if (const json::value* normalizer = Get(root, "normalizer")) {
      if (!TypeIs(normalizer, "Replace")) return Bad("normalizer is not Replace");
      const json::object& object = normalizer->get_object();
      const json::value* content = Get(object, "content");
      if (!PatternIs(*normalizer, " ") || content == nullptr || !content->is_string() ||
          content->get_string() != kSpaceMark)
        return Bad("normalizer does not replace a space by U+2581");
      t_.replaces_space_ = true;
    }
    const json::value* pre = Get(root, "pre_tokenizer");
    // Behind the normalizer no space is left, so this split never cuts.
    if (pre != nullptr && !(TypeIs(pre, "Split") && PatternIs(*pre, " ") && t_.replaces_space_))
      return Bad("pre_tokenizer is not the Split on a space");
    const json::value* post = Get(root, "post_processor");
    if (post != nullptr && !TypeIs(post, "TemplateProcessing"))
      return Bad("post_processor is not TemplateProcessing");
    if (const json::value* decoder = Get(root, "decoder"); decoder && !IsGemmaDecoder(*decoder))
      return Bad("decoder is not Replace of U+2581, ByteFallback, Fuse");
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
      if (const json::value* value = Get(model, key);
          value != nullptr && *value != "" && *value != 0.0)
        return Bad(fmt::format("model.{} is not supported", key));
    if (IsTrue(model, "ignore_merges")) return Bad("model.ignore_merges is not supported");
    t_.byte_fallback_ = IsTrue(model, "byte_fallback");
    t_.fuse_unk_ = IsTrue(model, "fuse_unk");
    return Ok{};
  }

  Status Place(std::string_view content, const json::value& id_value, bool special) {
    const json::value* number = &id_value;
    if (!number->is_int64() || number->get_int64() < 0 || number->get_int64() >= kMaxVocab)
      return Bad(fmt::format("the id of '{}' is not a whole number from 0 to {}",
                             content.substr(0, 64), kMaxVocab - 1));
    if (number->get_int64() >= id_limit_)
      return Bad(
          fmt::format("the id of '{}' is far beyond the number of entries", content.substr(0, 64)));
    const auto id = static_cast<size_t>(number->get_int64());
    if (id >= t_.tokens_.size()) {
      t_.tokens_.resize(id + 1);
      t_.special_.resize(id + 1);
      t_.byte_of_.resize(id + 1, -1);
    }
    if (!t_.tokens_[id].empty() && t_.tokens_[id] != content)
      return Bad(fmt::format("id {} is given twice", id));
    t_.tokens_[id] = content;
    if (special) t_.special_[id] = 1;
    return Ok{};
  }

  Status ReadVocabulary(const json::object&, const json::object& model) {
    const json::value* vocab = Get(model, "vocab");
    if (vocab == nullptr || !vocab->is_object() || vocab->get_object().empty())
      return Bad("model.vocab is missing");
    const json::object& entries = vocab->get_object();
    if (entries.size() > static_cast<size_t>(kMaxVocab)) return Bad("model.vocab is too large");
    // Ids lie close together: a single huge one must not make us allocate for it.
    id_limit_ = static_cast<int64_t>(entries.size()) * 2 + 65536;
    for (const auto& entry : entries)
      if (Status status = Place(entry.key(), entry.value(), false); !status.ok()) return status;
    return Ok{};
  }

  Status ReadAdded(const json::object& root, const json::object& model) {
    if (const json::value* added = Get(root, "added_tokens")) {
      if (!added->is_array() || added->get_array().size() > 65536)
        return Bad("added_tokens is not a list of at most 65536");
      for (const json::value& item : added->get_array()) {
        const json::object* object = item.if_object();
        const json::value* content = object == nullptr ? nullptr : Get(*object, "content");
        const json::value* id = object == nullptr ? nullptr : Get(*object, "id");
        if (content == nullptr || !content->is_string() || content->get_string().empty() ||
            id == nullptr)
          return Bad("added_tokens has an entry without content or id");
        for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"})
          if (IsTrue(*object, flag))
            return Bad(fmt::format("added token flag {} is not supported", flag));
        if (Status status = Place(content->get_string(), *id, IsTrue(*object, "special"));
            !status.ok())
          return status;
        t_.added_.push_back(
            {std::string(content->get_string()), static_cast<int32_t>(id->get_int64())});
      }
    }
    std::stable_sort(t_.added_.begin(), t_.added_.end(), [](const auto& a, const auto& b) {
      return a.content.size() > b.content.size();
    });
    t_.index_ = TokenIndex(t_.tokens_);
    for (int byte = 0; byte < 256; ++byte) {
      const auto id = t_.Find(fmt::format("<0x{:02X}>", byte));
      if (!id) continue;
      t_.byte_ids_[byte] = *id;
      if (t_.byte_fallback_) t_.byte_of_[static_cast<size_t>(*id)] = static_cast<int16_t>(byte);
    }
    if (const json::value* unk = Get(model, "unk_token"); unk != nullptr && unk->is_string())
      if (const auto id = t_.Find(unk->get_string())) t_.unk_id_ = *id;
    return Ok{};
  }

  // The two parts of a merge, "left right" or ["left", "right"].
  static bool Parts(const json::value& item, std::string_view& left, std::string_view& right) {
    if (item.is_string()) {
      const std::string_view both = item.get_string();
      const size_t space = both.find(' ');
      if (space == std::string_view::npos) return false;
      left = both.substr(0, space);
      right = both.substr(space + 1);
      return true;
    }
    if (!item.is_array() || item.get_array().size() != 2 || !item.get_array()[0].is_string() ||
        !item.get_array()[1].is_string())
      return false;
    left = item.get_array()[0].get_string();
    right = item.get_array()[1].get_string();
    return true;
  }

  Status ReadMerges(const json::object&, const json::object& model) {
    const json::value* merges = Get(model, "merges");
    if (merges == nullptr || !merges->is_array()) return Bad("model.merges is missing");
    const json::array& items = merges->get_array();
    std::vector<Bpe::Merge> list;
    list.reserve(items.size());
    // By blocks: a look-up alone waits for memory.
    constexpr size_t kBlock = 32;
    std::array<std::string_view, 3 * kBlock> contents;
    std::array<int32_t, 3 * kBlock> ids;
    std::array<std::string, kBlock> joined;
    for (size_t begin = 0; begin < items.size(); begin += kBlock) {
      const size_t count = std::min(kBlock, items.size() - begin);
      for (size_t i = 0; i < count; ++i) {
        std::string_view &left = contents[3 * i], &right = contents[3 * i + 1];
        if (!Parts(items[begin + i], left, right))
          return Bad(fmt::format("merge {} has no two parts", begin + i));
        contents[3 * i + 2] = joined[i].assign(left).append(right);
      }
      t_.index_.FindAll(std::span(contents).first(3 * count), t_.tokens_, ids);
      for (size_t i = 0; i < count; ++i) {
        const Bpe::Merge merge = {ids[3 * i], ids[3 * i + 1], ids[3 * i + 2]};
        if (merge.left < 0 || merge.right < 0 || merge.result < 0)
          return Bad(fmt::format("merge {} names an entry that the vocabulary has not", begin + i));
        list.push_back(merge);
      }
    }
    t_.bpe_ = Bpe(list);
    t_.ProveBorders(list);
    return Ok{};
  }

  std::string_view where_;
  int64_t id_limit_ = 0;
  Tokenizer t_;
};

Result<Tokenizer> Tokenizer::Parse(std::string_view content, std::string_view where) {
  // One arena for the whole document: a 32 MB file has a million small values.
  json::monotonic_resource arena(content.size() + 1024);
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code code;
  const json::value root = json::parse(content, code, &arena, options);
  if (code)
    return Error{fmt::format("{} is not valid JSON: {}", where, code.message()), "",
                 "invalid_json"};
  if (!root.is_object()) return Error{fmt::format("{} is not a JSON object", where), "", ""};
  return TokenizerReader(where).Read(root.get_object());
}

Result<Tokenizer> Tokenizer::Load(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  auto file = MappedFile::Open(path, kMaxTokenizerBytes);
  if (!file.ok()) return file.error();
  const std::span<const std::byte> bytes = file.value().bytes();
  return Parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace lapidary
