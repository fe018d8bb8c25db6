// tokenize: lines of text to lines of ids and back.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/App.hpp>

#include <filesystem>
#include <iostream>
#include <memory>

#include "app/command.h"
#include "app/model/find_model.h"
#include "io/json.h"
#include "text/tokenizer.h"

namespace lapidary {
namespace {

struct TokenizeFlags {
  std::string model;
  bool decode = false, bos = false, json = false;
};

[[noreturn]] void BadLine(size_t number, const std::string& rule) {
  throw StartupError(fmt::format("line {}: {}", number, rule));
}

std::vector<int32_t> EncodeLine(const Tokenizer& tokenizer, const TokenizeFlags& flags,
                                const std::string& line, size_t number) {
  std::vector<int32_t> ids;
  if (flags.bos) {
    const auto bos = tokenizer.Find("<bos>");
    if (!bos) throw StartupError("--bos: this vocabulary has no <bos>");
    ids.push_back(*bos);
  }
  std::string text = line;
  if (flags.json) {
    const auto value = ParseJson(line, "the text");
    if (!value.ok()) BadLine(number, value.error().message);
    if (!value.value().is_string()) BadLine(number, "with --json each line is one JSON string");
    text = value.value().get_string();
  }
  const std::vector<int32_t> encoded = tokenizer.Encode(text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return ids;
}

std::string DecodeLine(const Tokenizer& tokenizer, const std::string& line, size_t number) {
  const auto value = ParseJson(line, "the list");
  if (!value.ok()) BadLine(number, value.error().message);
  if (!value.value().is_array()) BadLine(number, "with --decode each line is a list of ids");
  std::vector<int32_t> ids;
  for (const json::value& item : value.value().get_array()) {
    if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() >= tokenizer.vocab_size())
      BadLine(number, fmt::format("{} is not a token id from 0 to {}", json::serialize(item),
                                  tokenizer.vocab_size() - 1));
    ids.push_back(static_cast<int32_t>(item.get_int64()));
  }
  return tokenizer.Decode(ids, false);
}

int RunTokenize(const TokenizeFlags& flags) {
  // The folder may hold tokenizer.json alone.
  std::error_code code;
  const bool is_folder = std::filesystem::is_directory(flags.model, code);
  const auto tokenizer =
      Tokenizer::Load(is_folder ? std::filesystem::path(flags.model) : FindModel(flags.model));
  if (!tokenizer.ok()) throw StartupError(tokenizer.error().message);
  std::ios::sync_with_stdio(false);
  std::string line;
  for (size_t number = 1; std::getline(std::cin, line); ++number) {
    if (flags.decode)
      std::cout << json::serialize(json::value(DecodeLine(tokenizer.value(), line, number)));
    else
      std::cout << fmt::format("[{}]",
                               fmt::join(EncodeLine(tokenizer.value(), flags, line, number), ", "));
    std::cout << '\n';
  }
  std::cout.flush();
  if (!std::cout) throw StartupError("the output cannot be written");
  return 0;
}

std::function<int()> SetUpTokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  app.add_option("--model,--model-path", flags->model,
                 "folder with tokenizer.json (default: the shipped pebble)");
  auto* decode = app.add_flag("--decode", flags->decode, "a JSON list of ids a line to a string");
  app.add_flag("--bos", flags->bos, "put <bos> first")->excludes(decode);
  app.add_flag("--json", flags->json, "each line in is a JSON string");
  return [flags] { return RunTokenize(*flags); };
}

}  // namespace

const Command kTokenizeCommand = {"tokenize", "turn lines of text into token ids, or back",
                                  "echo Hello | lapidary tokenize --model DIR --bos",
                                  SetUpTokenize};

}  // namespace lapidary
