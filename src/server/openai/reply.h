// Reply: what the answers of all generating routes share: who serves them, their form, their
// errors, and the way of their requests through the engine.
#ifndef LAPIDARY_SERVER_OPENAI_REPLY_H_
#define LAPIDARY_SERVER_OPENAI_REPLY_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/json.h"
#include "server/http/exchange.h"
#include "server/token_engine.h"
#include "text/chat_template.h"
#include "text/reply_parser.h"
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

// What all requests share. Lives as long as any of them, but for the engine.
struct Backend {
  // Set by whoever serves, who owns it and lets nobody call it any more before he ends it. No reply
  // has a share in it: the engine's own thread may be the last to let a reply go, and cannot end
  // the engine, which waits for that thread.
  TokenEngine* engine = nullptr;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: token ids in and out, no chat
  SamplingDefaults defaults;
  TemplateRevision chat_template = TemplateRevision::kEdge;
  std::string chat_template_text;  // the folder's own, or empty
  RenderOptions chat_defaults;
  bool parses_reasoning = true, parses_tools = true;
  std::shared_ptr<SeedSequence> seeds;                 // null: random
  std::function<void(const SlipCounts&)> count_slips;  // of each parsed choice; may be empty
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

// The next id for the engine; unique in this process.
uint64_t NextRequestId();

HttpResponse JsonResponse(const json::value& value);
HttpResponse ErrorResponse(int status, const Error& error, const char* type);
// Of a request that the engine did not take, and of one whose logits were not finite.
HttpResponse EngineRefusal(const Error& error, const TokenEngine& engine);
HttpResponse NumericalError();

// Owned by the sinks and the exchange; all work runs on the exchange's strand.
class Reply : public std::enable_shared_from_this<Reply> {
 public:
  Reply(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange, ReplyForm form)
      : backend_(std::move(backend)), exchange_(std::move(exchange)), form_(std::move(form)) {}
  virtual ~Reply() = default;
  // Requests come without ids.
  void Start(std::vector<Request> requests);
  void Abort();  // from any thread; the reply ends as aborted
  // From any thread: the reply ends with this error, unless it has ended, without a word to the
  // engine. `then` is called in any case.
  void End(const HttpResponse& error, std::function<void()> then);

 protected:
  // Makes the choices of requests_; returns how many.
  virtual size_t MakeChoices() = 0;
  // Of one of requests_. Not called after the end.
  virtual void OnEvent(size_t prompt, TokenEvent event) = 0;
  // All choices are over.
  virtual void FinishAll() = 0;
  void EndChoice() {
    if (--num_open_ > 0) return;
    done_ = true;
    FinishAll();
  }
  // The whole answer, if it is not streamed.
  void Respond(std::string body);

  const std::shared_ptr<const Backend> backend_;
  const std::shared_ptr<Exchange> exchange_;
  const ReplyForm form_;
  std::vector<Request> requests_;

 private:
  void Take(size_t prompt, TokenEvent event);
  void Fail(HttpResponse response);
  void Conclude(HttpResponse error);
  void CancelAll();

  size_t num_open_ = 0;
  bool done_ = false;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_REPLY_H_
