// lapidary eval: a file of questions with known answers, asked in process; how many are right.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>

#include "app/command.h"
#include "app/eval/scoring.h"
#include "app/model/load_model.h"
#include "io/json.h"
#include "text/prompt_ids.h"
#include "text/reply_parser.h"

namespace lapidary {
namespace {

// Enough to keep the largest batch full; bounds what waits in the engine's queue.
constexpr size_t kMaxInFlight = 256;

struct EvalFlags {
  std::string file;
  ModelFlags model;
  int max_tokens = 512, num_threads = 0;
  bool json_output = false;
};

struct Item {
  int line = 0;
  std::string skill;
  std::vector<int32_t> prompt;
  DeclaredTools tools;
  bool starts_in_thought = false;
  Expectation expected;
};

// Reads the items; every error names the line.
class ItemReader {
 public:
  ItemReader(std::string file, TemplateRevision revision, const Tokenizer& tokenizer)
      : file_(std::move(file)), revision_(revision), tokenizer_(tokenizer) {}

  std::vector<Item> ReadAll() {
    std::ifstream in(file_);
    if (!in) throw StartupError(fmt::format("{} cannot be opened", file_));
    std::vector<Item> items;
    std::string text;
    while (std::getline(in, text)) {
      ++line_;
      if (!Trim(text).empty()) items.push_back(Read(text));
    }
    if (in.bad()) throw StartupError(fmt::format("{} cannot be read", file_));
    if (items.empty()) throw StartupError(fmt::format("{} holds no items", file_));
    return items;
  }

 private:
  [[noreturn]] void Fail(std::string_view what) const {
    throw StartupError(fmt::format("{}, line {}: {}", file_, line_, what));
  }
  json::value Parse(std::string_view text, std::string_view what) const {
    auto parsed = ParseJson(text, what);
    if (!parsed.ok()) Fail(parsed.error().message);
    return std::move(parsed).value();
  }
  // Null if absent or null.
  static json::value* Find(json::object& object, std::string_view name) {
    json::value* value = object.if_contains(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  Item Read(const std::string& text) const {
    json::value document = Parse(text, "the item");
    if (!document.is_object()) Fail("an item must be an object");
    json::object& object = document.get_object();
    Item item;
    item.line = line_;
    item.skill = "(none)";
    if (const json::value* skill = Find(object, "skill")) {
      if (!skill->is_string()) Fail("skill must be a string");
      item.skill = skill->get_string();
    }
    ReadPrompt(object, item);
    ReadExpected(object, item);
    return item;
  }

  void ReadPrompt(json::object& object, Item& item) const {
    json::value* messages = Find(object, "messages");
    const json::value* prompt = Find(object, "prompt");
    if ((messages == nullptr) == (prompt == nullptr))
      Fail("an item needs either messages or prompt");
    const json::value* tools = Find(object, "tools");
    if (tools != nullptr && !tools->is_array()) Fail("tools must be a list");
    const json::array* tool_list = tools == nullptr ? nullptr : &tools->get_array();
    item.tools = DeclaredTools::Of(tool_list);
    RenderOptions options;
    if (const json::value* thinking = Find(object, "thinking")) {
      if (!thinking->is_bool()) Fail("thinking must be true or false");
      options.enable_thinking = thinking->get_bool();
    }
    if (prompt != nullptr) {
      if (!prompt->is_string()) Fail("prompt must be a string");
      item.prompt = tokenizer_.Encode(prompt->get_string());
      const auto bos = tokenizer_.Find("<bos>");
      if (bos && (item.prompt.empty() || item.prompt[0] != *bos))
        item.prompt.insert(item.prompt.begin(), *bos);
      return;
    }
    if (!messages->is_array()) Fail("messages must be a list");
    for (json::value& message : messages->get_array()) ParseArguments(message);
    const auto pieces = RenderChat(revision_, messages->get_array(), tool_list, options);
    if (!pieces.ok()) Fail(pieces.error().message);  // names its field
    item.prompt = EncodePrompt(tokenizer_, pieces.value());
    item.starts_in_thought = EndsInThought(pieces.value());
  }

  // OpenAI's shape has a call's arguments as JSON text; the template wants the object.
  void ParseArguments(json::value& message) const {
    if (!message.is_object()) return;
    json::value* calls = Find(message.get_object(), "tool_calls");
    if (calls == nullptr || !calls->is_array()) return;
    for (json::value& call : calls->get_array()) {
      json::value* function = call.is_object() ? Find(call.get_object(), "function") : nullptr;
      if (function == nullptr || !function->is_object()) continue;
      json::value* arguments = Find(function->get_object(), "arguments");
      if (arguments != nullptr && arguments->is_string())
        *arguments = Parse(std::string(arguments->get_string()), "arguments");
    }
  }

  Match ReadMatch(json::object& object) const {
    const json::value* match = Find(object, "match");
    if (match != nullptr && match->is_string()) {
      const json::string& name = match->get_string();
      if (name == "exact") return Match::kExact;
      if (name == "contains") return Match::kContains;
      if (name == "json") return Match::kJson;
      if (name == "tool_call") return Match::kToolCall;
    }
    Fail("match must be exact, contains, json or tool_call");
  }

  void ReadExpected(json::object& object, Item& item) const {
    Expectation& wanted = item.expected;
    wanted.match = ReadMatch(object);
    json::value* expected = object.if_contains("expected");
    if (expected == nullptr) Fail("expected is missing");
    if (wanted.match == Match::kExact || wanted.match == Match::kContains) {
      if (!expected->is_string()) Fail("expected must be a string");
      wanted.text = expected->get_string();
      return;
    }
    wanted.value =
        expected->is_string() ? Parse(std::string(expected->get_string()), "expected") : *expected;
    if (wanted.match == Match::kJson) return;
    json::object* call = wanted.value.if_object();
    const json::value* name = call == nullptr ? nullptr : Find(*call, "name");
    json::value* arguments = call == nullptr ? nullptr : Find(*call, "arguments");
    if (name == nullptr || !name->is_string() || arguments == nullptr)
      Fail("expected must hold a call's name and arguments");
    if (arguments->is_string())
      *arguments = Parse(std::string(arguments->get_string()), "expected.arguments");
  }

  std::string file_;
  TemplateRevision revision_;
  const Tokenizer& tokenizer_;
  int line_ = 0;
};

Answer ReadAnswer(const Tokenizer& tokenizer, const Item& item, const std::vector<int32_t>& ids) {
  ReplyParser parser(tokenizer, ReplyTokens::Of(tokenizer), item.tools, item.starts_in_thought);
  Answer answer;
  const auto take = [&answer](const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      if (delta.kind == ReplyDelta::kContent) answer.content += delta.text;
      if (delta.index != 0) continue;
      if (delta.kind == ReplyDelta::kToolCall) answer.call = FirstCall{delta.text, ""};
      if (delta.kind == ReplyDelta::kToolArguments && answer.call)
        answer.call->arguments += delta.text;
    }
  };
  for (const int32_t id : ids) take(parser.Push(id));
  take(parser.Finish());
  return answer;
}

struct Finished {
  explicit Finished(size_t index) : item(index) {}
  size_t item;
  std::vector<int32_t> ids;
  bool failed = false;
};

// Replies that are over, from the engine's thread to the one that scores.
class FinishedQueue {
 public:
  TokenSink SinkFor(size_t item) {
    // Shared: the engine may call a copy of the sink.
    return [this, reply = std::make_shared<Finished>(item)](TokenEvent&& event) {
      reply->ids.insert(reply->ids.end(), event.tokens.begin(), event.tokens.end());
      if (event.finish == FinishReason::kNone) return;
      reply->failed = event.finish == FinishReason::kError || event.finish == FinishReason::kAbort;
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(*reply));
      changed_.notify_one();
    };
  }
  Finished Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !queue_.empty(); });
    Finished reply = std::move(queue_.front());
    queue_.pop_front();
    return reply;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Finished> queue_;
};

using Scores = std::map<std::string, Score>;

Score Overall(const Scores& scores) {
  Score all;
  for (const auto& [skill, score] : scores) {
    all.right += score.right;
    all.total += score.total;
  }
  return all;
}

// `queue` outlives `engine`, whose thread may still call a sink when this throws.
Scores AskAll(Engine& engine, FinishedQueue& queue, const Tokenizer& tokenizer,
              const EvalFlags& flags, const std::vector<Item>& items) {
  const bool shows_progress = isatty(STDERR_FILENO) != 0;
  Scores scores;
  size_t submitted = 0;
  for (size_t done = 0; done < items.size(); ++done) {
    for (; submitted < items.size() && submitted - done < kMaxInFlight; ++submitted) {
      Request request;
      request.id = submitted + 1;
      request.prompt = items[submitted].prompt;
      request.max_tokens = flags.max_tokens;
      request.sampling.temperature = 0;
      const Status status = engine.Submit(std::move(request), queue.SinkFor(submitted));
      if (!status.ok())
        throw StartupError(fmt::format("{}, line {}: {}", flags.file, items[submitted].line,
                                       status.error().message));
    }
    const Finished reply = queue.Take();
    const Item& item = items[reply.item];
    if (reply.failed)
      throw StartupError(
          fmt::format("{}, line {}: the engine gave up on it", flags.file, item.line));
    Score& score = scores[item.skill];
    ++score.total;
    if (IsRight(item.expected, ReadAnswer(tokenizer, item, reply.ids))) ++score.right;
    if (shows_progress) fmt::print(stderr, "\r{}/{}", done + 1, items.size());
  }
  if (shows_progress) fmt::print(stderr, "\r\033[K");
  return scores;
}

void PrintTable(const Scores& scores, double seconds) {
  size_t width = 5;
  for (const auto& [skill, score] : scores) width = std::max(width, skill.size());
  for (const auto& [skill, score] : scores)
    fmt::print("{:<{}}  {:>5}/{:<5} {:6.1f} %\n", skill, width, score.right, score.total,
               100.0 * score.right / score.total);
  const Score all = Overall(scores);
  const auto [low, high] = Wilson(all);
  fmt::print("{:<{}}  {:>5}/{:<5} {:6.1f} %  (95 % interval {:.1f} to {:.1f} %), {:.1f} s\n", "all",
             width, all.right, all.total, 100.0 * all.right / all.total, 100 * low, 100 * high,
             seconds);
}

void PrintJson(const Scores& scores, double seconds) {
  const Score all = Overall(scores);
  const auto [low, high] = Wilson(all);
  json::object skills;
  for (const auto& [skill, score] : scores)
    skills[skill] = {{"right", score.right}, {"total", score.total}};
  json::object out;
  out["skills"] = std::move(skills);
  out["right"] = all.right;
  out["total"] = all.total;
  out["accuracy"] = static_cast<double>(all.right) / all.total;
  out["interval_95"] = json::array{low, high};
  out["seconds"] = seconds;
  std::cout << json::serialize(out) << "\n";
}

int RunEval(const EvalFlags& flags) {
  LoadedModel model = LoadModel(flags.model);
  const Tokenizer& tokenizer = NeedTokenizer(model);
  const std::vector<Item> items = ItemReader(flags.file, model.chat.revision, tokenizer).ReadAll();

  EngineOptions options;
  options.num_threads = flags.num_threads;
  options = WithModel(options, flags.model, model);
  FinishedQueue queue;
  Engine engine(std::move(model.target), std::move(model.drafter), options);
  const auto start = std::chrono::steady_clock::now();
  const Scores scores = AskAll(engine, queue, tokenizer, flags, items);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  if (flags.json_output)
    PrintJson(scores, spent.count());
  else
    PrintTable(scores, spent.count());
  return 0;
}

std::function<int()> SetUpEval(CLI::App& app) {
  auto f = std::make_shared<EvalFlags>();
  app.add_option("file", f->file, "items, one JSON object a line")->required();
  AddModelFlags(app, f->model);
  AddLoadFlags(app, f->model);
  app.add_option("--max-tokens,--max-new-tokens", f->max_tokens, "tokens to generate an item")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--num-threads", f->num_threads, "0: all cores")->check(CLI::Range(0, 1024));
  app.add_flag("--json", f->json_output, "print one JSON object and nothing else");
  return [f] { return RunEval(*f); };
}

}  // namespace

const Command kEvalCommand = {"eval", "share of right answers to a file of questions",
                              "lapidary eval models/pebble/skills.jsonl", SetUpEval};

}  // namespace lapidary
