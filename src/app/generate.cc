// lapidary generate: one prompt, one reply, in process.
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <CLI/App.hpp>
#include <boost/json/value_from.hpp>

#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <random>

#include "app/command.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "io/json.h"
#include "text/prompt_ids.h"

namespace lapidary {
namespace {

struct GenerateFlags {
  ModelFlags model;
  std::string prompt;
  std::vector<int32_t> prompt_ids;
  bool chat = false, thinking = false, ignore_eos = false, json_output = false;
  int max_tokens = 128, num_threads = 0, max_model_len = 0;
  bool debug_kv_bounds = false;
  std::optional<float> temperature;
  std::optional<int64_t> seed;
};

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<int32_t> ParseIds(const std::string& text) {
  const auto fail = [](const std::string& why) {
    throw CLI::ValidationError("--prompt-token-ids", why);
  };
  const Result<json::value> parsed = ParseJson(text, "the value");
  if (!parsed.ok()) fail(parsed.error().message);
  std::vector<int32_t> ids;
  if (parsed.value().is_array())
    for (const json::value& item : parsed.value().get_array()) {
      if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() > INT32_MAX)
        fail(fmt::format("{} is no token id", json::serialize(item)));
      ids.push_back(static_cast<int32_t>(item.get_int64()));
    }
  if (ids.empty()) fail("the value must be a JSON array of ids, such as [2, 17]");
  return ids;
}

std::vector<int32_t> MakePrompt(const GenerateFlags& flags, const LoadedModel& model) {
  const int vocab_size = model.target->config.vocab_size;
  for (const int32_t id : flags.prompt_ids)
    if (id >= vocab_size)
      throw StartupError(
          fmt::format("--prompt-token-ids must hold ids from 0 to {}", vocab_size - 1));
  if (!flags.prompt_ids.empty()) return flags.prompt_ids;
  if (model.tokenizer == nullptr)
    throw StartupError(
        fmt::format("{} has no tokenizer.json; give --prompt-token-ids", model.dir.string()));
  const Tokenizer& tokenizer = *model.tokenizer;
  if (flags.chat) {
    const json::array messages = {{{"role", "user"}, {"content", flags.prompt}}};
    RenderOptions options;
    options.enable_thinking = flags.thinking;
    return EncodePrompt(tokenizer,
                        OrThrow(RenderChat(model.chat.revision, messages, nullptr, options)));
  }
  std::vector<int32_t> ids = tokenizer.Encode(flags.prompt);
  const auto bos = tokenizer.Find("<bos>");
  if (bos && (ids.empty() || ids[0] != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

// Collects one reply; prints its text as it comes unless a JSON object is wanted.
class ReplyCollector {
 public:
  ReplyCollector(const Tokenizer* tokenizer, bool prints) : prints_(prints) {
    if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer);
  }
  TokenSink Sink() {
    return [this](TokenEvent&& event) {
      std::lock_guard lock(mutex_);
      if (ids_.empty() && !event.tokens.empty()) first_token_ = Clock::now();
      for (const int32_t id : event.tokens) Add(id);
      finish_ = event.finish;
      if (finish_ != FinishReason::kNone) done_.notify_all();
    };
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return finish_ != FinishReason::kNone; });
    if (detokenizer_) Show(detokenizer_->Finish());
  }
  const std::vector<int32_t>& ids() const { return ids_; }
  const std::string& text() const { return text_; }
  FinishReason finish() const { return finish_; }
  Clock::time_point first_token() const { return first_token_; }

 private:
  void Add(int32_t id) {
    ids_.push_back(id);
    if (detokenizer_)
      Show(detokenizer_->Push(id));
    else if (prints_)
      fmt::print("{}{}", ids_.size() > 1 ? " " : "", id);
  }
  void Show(const std::string& piece) {
    text_ += piece;
    if (!prints_) return;
    std::cout << piece << std::flush;
  }
  bool prints_;
  std::optional<Detokenizer> detokenizer_;
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<int32_t> ids_;
  std::string text_;
  FinishReason finish_ = FinishReason::kNone;
  Clock::time_point first_token_ = Clock::now();
};

const char* FinishName(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      return "error";
    case FinishReason::kAbort:
    case FinishReason::kNone:
      break;
  }
  return "abort";
}

int RunGenerate(const GenerateFlags& flags) {
  const auto start = Clock::now();
  LoadedModel model = LoadModel(flags.model);

  Request request;
  request.id = 1;
  request.prompt = MakePrompt(flags, model);
  request.max_tokens = flags.max_tokens;
  request.sampling.temperature = flags.temperature.value_or(model.generation.temperature);
  request.sampling.top_k = model.generation.top_k;
  request.sampling.top_p = model.generation.top_p;
  request.sampling.seed = flags.seed ? static_cast<uint64_t>(*flags.seed) : std::random_device{}();
  request.sampling.ignore_eos = flags.ignore_eos;
  const auto prompt_tokens = request.prompt.size();

  EngineOptions options;
  options.max_running_requests = 1;
  options.num_threads = flags.num_threads;
  options.max_model_len = flags.max_model_len;
  options.debug_kv_bounds = flags.debug_kv_bounds;
  options = WithModel(options, flags.model, model);
  Engine engine(std::move(model.target), std::move(model.drafter), options);
  const double load_seconds = Since(start);
  ReplyCollector reply(model.tokenizer.get(), !flags.json_output);
  const auto submitted = Clock::now();
  OrThrow(engine.Submit(std::move(request), reply.Sink()));
  reply.Wait();
  const double total = Since(submitted);
  const double first = std::chrono::duration<double>(reply.first_token() - submitted).count();
  if (flags.json_output) {
    json::object out;
    out["token_ids"] = json::value_from(reply.ids());
    out["text"] = reply.text();
    out["finish_reason"] = FinishName(reply.finish());
    out["timings"] = {{"load_s", load_seconds},
                      {"prompt_tokens", prompt_tokens},
                      {"first_token_s", first},
                      {"total_s", total}};
    std::cout << json::serialize(out) << "\n";
  } else {
    std::cout << "\n";
  }
  return reply.finish() == FinishReason::kError ? kExitFailure : 0;
}

std::function<int()> SetUpGenerate(CLI::App& app) {
  auto f = std::make_shared<GenerateFlags>();
  AddModelFlags(app, f->model);
  AddLoadFlags(app, f->model);
  auto* prompt = app.add_option("--prompt", f->prompt, "raw text after <bos>");
  auto* ids = app.add_option_function<std::string>(
      "--prompt-token-ids", [f](const std::string& text) { f->prompt_ids = ParseIds(text); },
      "JSON array of ids instead of a text");
  prompt->excludes(ids);
  app.add_flag("--chat", f->chat, "wrap the prompt in the chat template");
  app.add_flag("--thinking", f->thinking, "with --chat: let the model think first");
  app.add_option("--max-tokens,--max-new-tokens", f->max_tokens, "tokens to generate")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app.add_option("--temperature", f->temperature, "0 is greedy (default: generation_config.json)")
      ->check(CLI::Range(0.0f, 100.0f));
  app.add_option("--seed,--random-seed", f->seed, "of the random numbers (default: random)");
  app.add_flag("--ignore-eos", f->ignore_eos, "go on after an end token");
  AddTokenCount(app, "--max-model-len,--context-length", f->max_model_len,
                "context (auto: the model's, or what fits)");
  app.add_option("--num-threads", f->num_threads, "0: all cores")->check(CLI::Range(0, 1024));
  app.add_flag("--debug-kv-bounds", f->debug_kv_bounds,
               "check every page table entry before each attention");
  app.add_flag("--json", f->json_output, "print one JSON object and nothing else");
  return [f, prompt, ids] {
    if (prompt->empty() && ids->empty()) {
      fmt::print(stderr, "lapidary: generate needs --prompt or --prompt-token-ids\n");
      return kExitUsage;
    }
    return RunGenerate(*f);
  };
}

}  // namespace

const Command kGenerateCommand = {"generate", "one prompt, one reply",
                                  "lapidary generate --chat --prompt 'What is 12 + 30?'",
                                  SetUpGenerate};

}  // namespace lapidary
