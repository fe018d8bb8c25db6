// Completion: one POST /v1/completions from checked fields to its last byte.
#ifndef LAPIDARY_SERVER_OPENAI_COMPLETION_H_
#define LAPIDARY_SERVER_OPENAI_COMPLETION_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "server/http/exchange.h"
#include "server/openai/choice_usage.h"
#include "server/token_engine.h"
#include "text/chat_template.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace lapidary {

struct SamplingDefaults {
  float temperature = 1.0f;
  int top_k = 64;
  float top_p = 0.95f;
};

// Seeds for requests that bring none: another one each time, the same ones in the same order for
// the same start.
class SeedSequence {
 public:
  explicit SeedSequence(int64_t start) : start_(static_cast<uint64_t>(start)) {}
  uint64_t Next();  // thread-safe

 private:
  uint64_t start_;
  std::atomic<uint64_t> num_drawn_{0};
};

// What all requests share. Lives as long as any of them.
struct Backend {
  std::shared_ptr<TokenEngine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: token ids in and out, no chat
  SamplingDefaults defaults;
  TemplateRevision chat_template = TemplateRevision::kEdge;
  std::string chat_template_text;  // the folder's own, or empty
  RenderOptions chat_defaults;
  bool parses_reasoning = true, parses_tools = true;
  std::shared_ptr<SeedSequence> seeds;  // null: random
  PriorityOrder priority_order = PriorityOrder::kNone;
  json::object started_with;  // flags and plan, for /server_info
};

// The answer's identity and form.
struct ReplyForm {
  std::string id, model;
  int64_t created = 0;
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false, skip_special = true;
  bool token_ids = false;      // return_token_ids
  bool ids_as_tokens = false;  // return_tokens_as_token_ids
  bool timings = false;
  CacheSalt caller_salt{};  // of whoever asks: prompts share the prefix cache under it only
  int num_logprobs = -1;
  bool prompt_logprobs = false;  // as a list of their own
  int n = 1;
  std::vector<std::string> stops;
  bool keep_stop = false;
};

// Errors name the field in param. Requests come without ids.
Result<std::vector<Request>> MakeRequests(const json::object& fields, const Backend& backend,
                                          ReplyForm& form);

// The refusal of `param` on a server that has no tokenizer.
Error NoTokenizer(const char* param);

// The next id for the engine; unique in this process.
uint64_t NextRequestId();

// Owned by the sinks and the exchange; all work runs on the exchange's strand.
class Completion : public std::enable_shared_from_this<Completion> {
 public:
  Completion(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange,
             ReplyForm form);
  void Start(std::vector<Request> requests);
  void Abort();  // from any thread; the reply ends as aborted

 private:
  struct Choice {
    Choice(const Tokenizer* tokenizer, const ReplyForm& form) : stops(form.stops, form.keep_stop) {
      if (tokenizer != nullptr) detokenizer.emplace(*tokenizer, form.skip_special);
    }
    std::optional<Detokenizer> detokenizer;
    StopMatcher stops;
    std::string text;
    size_t offset = 0;   // of the next token's text, for logprobs
    std::string finish;  // empty while it runs
    json::value stop_reason;
    json::object logprobs;  // not sent yet, as are these two
    json::array token_ids;
    json::array prompt_logprobs;  // with the first tokens of a prompt's first choice
    ChoiceUsage usage;
    bool begun = false;
  };

  void OnEvent(size_t prompt, TokenEvent event);
  void Take(Choice& choice, size_t prompt, const TokenEvent& event);
  // How many of the event's tokens the choice keeps.
  int TakeTokens(Choice& choice, const TokenEvent& event);
  void AddEcho(Choice& choice, size_t prompt, const TokenEvent& event);
  void AddLogprobs(Choice& choice, const TokenLogprobs* entry, int32_t token);
  void SendChunk(size_t index, std::string text);
  void FinishAll();
  void Fail(HttpResponse response);
  void CancelAll();
  json::object Envelope() const;
  // Moves what was not sent yet out of the choice.
  json::object ChoiceObject(size_t index, std::string text);
  json::object Usage() const;

  std::shared_ptr<const Backend> backend_;
  std::shared_ptr<Exchange> exchange_;
  ReplyForm form_;
  std::vector<Request> requests_;
  std::vector<Choice> choices_;  // prompt * n + choice
  size_t num_open_ = 0;
  bool done_ = false;
};

HttpResponse ErrorResponse(int status, const Error& error, const char* type);
// Of a request that the engine did not take, and of one whose logits were not finite.
HttpResponse EngineRefusal(const Error& error, const TokenEngine& engine);
HttpResponse NumericalError();

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_COMPLETION_H_
