// lapidary eval: a file of questions with known answers, asked in process; how many are right.
#include <fmt/core.h>
#include <unistd.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>

#include "app/command.h"
#include "app/eval/scoring.h"
#include "app/model/load_model.h"
#include "app/model/prompt_line.h"
#include "io/json.h"
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
  PromptLine prompt;
  Expectation expected;
};

// An item of a line, or what is wrong with it.
class ItemReader {
 public:
  explicit ItemReader(const PromptReader& prompts) : prompts_(prompts) {}

  Result<Item> Read(json::object& object) const {
    Item item;
    item.skill = "(none)";
    if (const json::value* skill = FindValue(object, "skill")) {
      if (!skill->is_string()) return Wrong("skill must be a string");
      item.skill = skill->get_string();
    }
    Result<PromptLine> prompt = prompts_.Read(object);
    if (!prompt.ok()) return prompt.error();
    item.prompt = std::move(prompt).value();
    const Status expected = ReadExpected(object, item.expected);
    if (!expected.ok()) return expected.error();
    return item;
  }

 private:
  static Error Wrong(const char* what) { return {what, "", ""}; }

  static Result<Match> ReadMatch(json::object& object) {
    const json::value* match = FindValue(object, "match");
    if (match != nullptr && match->is_string()) {
      const json::string& name = match->get_string();
      if (name == "exact") return Match::kExact;
      if (name == "contains") return Match::kContains;
      if (name == "json") return Match::kJson;
      if (name == "tool_call") return Match::kToolCall;
    }
    return Wrong("match must be exact, contains, json or tool_call");
  }

  static Status ReadExpected(json::object& object, Expectation& wanted) {
    const Result<Match> match = ReadMatch(object);
    if (!match.ok()) return match.error();
    wanted.match = match.value();
    json::value* expected = object.if_contains("expected");
    if (expected == nullptr) return Wrong("expected is missing");
    if (wanted.match == Match::kExact || wanted.match == Match::kContains) {
      if (!expected->is_string()) return Wrong("expected must be a string");
      wanted.text = expected->get_string();
      return Ok{};
    }
    if (const Status parsed = ParseText(*expected, "expected"); !parsed.ok()) return parsed;
    wanted.value = *expected;
    if (wanted.match == Match::kJson) return Ok{};
    json::object* call = wanted.value.if_object();
    const json::value* name = call == nullptr ? nullptr : FindValue(*call, "name");
    json::value* arguments = call == nullptr ? nullptr : FindValue(*call, "arguments");
    if (name == nullptr || !name->is_string() || arguments == nullptr)
      return Wrong("expected must hold a call's name and arguments");
    return ParseText(*arguments, "expected.arguments");
  }

  // JSON that is given as text becomes what the text says.
  static Status ParseText(json::value& value, const char* what) {
    if (!value.is_string()) return Ok{};
    Result<json::value> parsed = ParseJson(std::string(value.get_string()), what);
    if (!parsed.ok()) return parsed.error();
    value = std::move(parsed).value();
    return Ok{};
  }

  const PromptReader& prompts_;
};

std::vector<Item> ReadItems(const std::string& file, const LoadedModel& model) {
  const PromptReader prompts(model.chat.revision, &NeedTokenizer(model),
                             model.target->config.vocab_size);
  const ItemReader reader(prompts);
  std::vector<Item> items;
  ForEachJsonLine(file, [&](json::object& line, int number) -> Status {
    Result<Item> item = reader.Read(line);
    if (!item.ok()) return item.error();
    items.push_back(std::move(item).value());
    items.back().line = number;
    return Ok{};
  });
  if (items.empty()) throw StartupError(fmt::format("{} holds no items", file));
  return items;
}

Answer ReadAnswer(const Tokenizer& tokenizer, const Item& item, const std::vector<int32_t>& ids) {
  ReplyParser parser(tokenizer, ReplyTokens::Of(tokenizer), item.prompt.tools,
                     item.prompt.starts_in_thought);
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
  int drafted = 0, accepted = 0;
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
      reply->drafted = event.drafted_tokens;
      reply->accepted = event.accepted_tokens;
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

struct Outcome {
  std::map<std::string, Score> skills;
  int64_t drafted = 0, accepted = 0;  // tokens of the drafter
};

Score Overall(const Outcome& outcome) {
  Score all;
  for (const auto& [skill, score] : outcome.skills) {
    all.right += score.right;
    all.total += score.total;
  }
  return all;
}

// `queue` outlives `engine`, whose thread may still call a sink when this throws.
Outcome AskAll(Engine& engine, FinishedQueue& queue, const Tokenizer& tokenizer,
               const EvalFlags& flags, const std::vector<Item>& items) {
  const bool shows_progress = isatty(STDERR_FILENO) != 0;
  Outcome outcome;
  size_t submitted = 0;
  for (size_t done = 0; done < items.size(); ++done) {
    for (; submitted < items.size() && submitted - done < kMaxInFlight; ++submitted) {
      Request request;
      request.id = submitted + 1;
      request.prompt = items[submitted].prompt.ids;
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
    outcome.drafted += reply.drafted;
    outcome.accepted += reply.accepted;
    Score& score = outcome.skills[item.skill];
    ++score.total;
    if (IsRight(item.expected, ReadAnswer(tokenizer, item, reply.ids))) ++score.right;
    if (shows_progress) fmt::print(stderr, "\r{}/{}", done + 1, items.size());
  }
  if (shows_progress) fmt::print(stderr, "\r\033[K");
  return outcome;
}

void PrintTable(const Outcome& outcome, double seconds) {
  size_t width = 5;
  for (const auto& [skill, score] : outcome.skills) width = std::max(width, skill.size());
  for (const auto& [skill, score] : outcome.skills)
    fmt::print("{:<{}}  {:>5}/{:<5} {:6.1f} %\n", skill, width, score.right, score.total,
               100.0 * score.right / score.total);
  const Score all = Overall(outcome);
  const auto [low, high] = Wilson(all);
  fmt::print("{:<{}}  {:>5}/{:<5} {:6.1f} %  (95 % interval {:.1f} to {:.1f} %), {:.1f} s\n", "all",
             width, all.right, all.total, 100.0 * all.right / all.total, 100 * low, 100 * high,
             seconds);
  if (outcome.drafted > 0)
    fmt::print(
        "drafts accepted: {} of {}, {:.1f} %\n", outcome.accepted, outcome.drafted,
        100.0 * static_cast<double>(outcome.accepted) / static_cast<double>(outcome.drafted));
}

void PrintJson(const Outcome& outcome, double seconds) {
  const Score all = Overall(outcome);
  const auto [low, high] = Wilson(all);
  json::object skills;
  for (const auto& [skill, score] : outcome.skills)
    skills[skill] = {{"right", score.right}, {"total", score.total}};
  json::object out;
  out["skills"] = std::move(skills);
  out["right"] = all.right;
  out["total"] = all.total;
  out["accuracy"] = static_cast<double>(all.right) / all.total;
  out["interval_95"] = json::array{low, high};
  out["drafted_tokens"] = outcome.drafted;
  out["accepted_tokens"] = outcome.accepted;
  out["seconds"] = seconds;
  std::cout << json::serialize(out) << "\n";
}

int RunEval(const EvalFlags& flags) {
  LoadedModel model = LoadModel(flags.model);
  const Tokenizer& tokenizer = NeedTokenizer(model);
  const std::vector<Item> items = ReadItems(flags.file, model);

  EngineOptions options;
  options.num_threads = flags.num_threads;
  options = WithModel(options, flags.model, model);
  FinishedQueue queue;
  Engine engine(std::move(model.target), std::move(model.drafter), options);
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = AskAll(engine, queue, tokenizer, flags, items);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  if (flags.json_output)
    PrintJson(outcome, spent.count());
  else
    PrintTable(outcome, spent.count());
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
