// Completion: one POST /v1/completions from checked fields to its last byte.
#ifndef LAPIDARY_SERVER_OPENAI_COMPLETION_H_
#define LAPIDARY_SERVER_OPENAI_COMPLETION_H_

#include <memory>
#include <string>
#include <vector>

#include "io/json.h"
#include "server/http/exchange.h"
#include "server/token_engine.h"
#include "text/chat_template.h"
#include "text/reply_parser.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace lapidary {

struct SamplingDefaults {
  float temperature = 1.0f;
  int top_k = 64;
  float top_p = 0.95f;
};

// What all requests share. Lives as long as any of them.
struct Backend {
  std::shared_ptr<TokenEngine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  SamplingDefaults defaults;
  TemplateRevision chat_template = TemplateRevision::kEdge;
};

// The answer's identity and form.
struct ReplyForm {
  std::string id, model;
  int64_t created = 0;
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false, skip_special = true;
  int num_logprobs = -1;
  int n = 1;
  std::vector<std::string> stops;
  bool keep_stop = false;
};

// Errors name the field in param. Requests come without ids.
Result<std::vector<Request>> MakeRequests(const json::object& fields, const Backend& backend,
                                          ReplyForm& form);

// The parts of a chat request that its reply depends on.
struct ChatForm {
  DeclaredTools tools;
  bool start_in_thought = false, include_reasoning = true, parallel_calls = true;
};
// One request from checked chat fields: messages rendered with the model's template.
Result<Request> MakeChatRequest(const json::object& fields, const Backend& backend, ReplyForm& form,
                                ChatForm& chat);

// The next id for the engine; unique in this process.
uint64_t NextRequestId();

// Owned by the sinks and the exchange; all work runs on the exchange's strand.
class Completion : public std::enable_shared_from_this<Completion> {
 public:
  Completion(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange,
             ReplyForm form);
  void Start(std::vector<Request> requests);

 private:
  struct Choice {
    Choice(const Tokenizer& tokenizer, const ReplyForm& form)
        : detokenizer(tokenizer, form.skip_special), stops(form.stops, form.keep_stop) {}
    Detokenizer detokenizer;
    StopMatcher stops;
    std::string text;
    size_t offset = 0;   // of the next token's text, for logprobs
    std::string finish;  // empty while it runs
    json::value stop_reason;
    json::object logprobs;
    int num_tokens = 0;
  };

  void OnEvent(size_t prompt, TokenEvent event);
  void Take(Choice& choice, size_t prompt, const TokenEvent& event);
  void AddEcho(Choice& choice, size_t prompt, const TokenEvent& event);
  void AddLogprobs(Choice& choice, const TokenLogprobs* entry, int32_t token);
  void SendChunk(size_t index, std::string text, json::object logprobs);
  void FinishAll();
  void Fail(int status, const Error& error, const char* type);
  void CancelAll();
  json::object Envelope() const;
  json::object ChoiceObject(size_t index, std::string text, json::object logprobs) const;
  json::object Usage() const;

  std::shared_ptr<const Backend> backend_;
  std::shared_ptr<Exchange> exchange_;
  ReplyForm form_;
  std::vector<Request> requests_;
  std::vector<Choice> choices_;  // prompt * n + choice
  size_t num_open_ = 0;
  int cached_tokens_ = 0;
  bool done_ = false;
};

HttpResponse ErrorResponse(int status, const Error& error, const char* type);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_COMPLETION_H_
