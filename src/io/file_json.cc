#include "io/file_json.h"

#include <boost/json/basic_parser_impl.hpp>
#include <string>
#include <unordered_set>
#include <vector>

namespace lapidary {
namespace {

// A handler for Boost's parser that keeps nothing but the keys of the open objects and stops at the
// first one that its object holds already.
class KeyWatcher {
 public:
  static constexpr size_t max_object_size = SIZE_MAX, max_array_size = SIZE_MAX,
                          max_key_size = SIZE_MAX, max_string_size = SIZE_MAX;
  using Code = boost::system::error_code;

  const std::string& key() const { return key_; }  // the last one read

  bool on_object_begin(Code&) {
    if (++depth_ > open_.size()) open_.emplace_back();
    open_[depth_ - 1].clear();
    return true;
  }
  bool on_object_end(size_t, Code&) {
    --depth_;
    return true;
  }
  bool on_key_part(json::string_view part, size_t size, Code&) {
    if (size == part.size()) key_.clear();
    key_ += part;
    return true;
  }
  bool on_key(json::string_view part, size_t size, Code& code) {
    on_key_part(part, size, code);
    if (open_[depth_ - 1].insert(key_).second) return true;
    code = boost::system::errc::make_error_code(boost::system::errc::invalid_argument);
    return false;
  }
  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_array_begin(Code&) { return true; }
  bool on_array_end(size_t, Code&) { return true; }
  bool on_string_part(json::string_view, size_t, Code&) { return true; }
  bool on_string(json::string_view, size_t, Code&) { return true; }
  bool on_number_part(json::string_view, Code&) { return true; }
  bool on_int64(int64_t, json::string_view, Code&) { return true; }
  bool on_uint64(uint64_t, json::string_view, Code&) { return true; }
  bool on_double(double, json::string_view, Code&) { return true; }
  bool on_bool(bool, Code&) { return true; }
  bool on_null(Code&) { return true; }
  bool on_comment_part(json::string_view, Code&) { return true; }
  bool on_comment(json::string_view, Code&) { return true; }

 private:
  std::vector<std::unordered_set<std::string>> open_;  // the first depth_ are in use
  size_t depth_ = 0;
  std::string key_;
};

}  // namespace

Result<json::value> ParseFileJson(std::string_view text, std::string_view what) {
  auto parsed = ParseJson(text, what);
  if (!parsed.ok()) return parsed;
  boost::system::error_code code;
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  json::basic_parser<KeyWatcher> watcher(options);
  watcher.write_some(false, text.data(), text.size(), code);
  if (code) {
    // Keys come from the file: cut, so that an error stays a sentence.
    const std::string key = watcher.handler().key().substr(0, 200);
    return Error{fmt::format("{}: the key '{}' occurs twice", what, key), key, "invalid_json"};
  }
  return parsed;
}

}  // namespace lapidary
