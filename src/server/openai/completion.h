// Completion: one POST /v1/completions from checked fields to its last byte.
#ifndef LAPIDARY_SERVER_OPENAI_COMPLETION_H_
#define LAPIDARY_SERVER_OPENAI_COMPLETION_H_

#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "server/openai/choice_usage.h"
#include "server/openai/reply.h"
#include "text/stop_matcher.h"

namespace lapidary {

// Errors name the field in param. Requests come without ids.
Result<std::vector<Request>> MakeRequests(const json::object& fields, const Backend& backend,
                                          ReplyForm& form);

// The refusal of `param` on a server that has no tokenizer.
Error NoTokenizer(const char* param);

class Completion : public Reply {
 public:
  using Reply::Reply;

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

  size_t MakeChoices() override;
  void OnEvent(size_t prompt, TokenEvent event) override;
  void Take(Choice& choice, size_t prompt, const TokenEvent& event);
  // How many of the event's tokens the choice keeps.
  int TakeTokens(Choice& choice, const TokenEvent& event);
  void AddEcho(Choice& choice, size_t prompt, const TokenEvent& event);
  void AddLogprobs(Choice& choice, const TokenLogprobs* entry, int32_t token);
  void SendChunk(size_t index, std::string text);
  void FinishAll() override;
  json::object Envelope() const;
  // Moves what was not sent yet out of the choice.
  json::object ChoiceObject(size_t index, std::string text);
  json::object Usage() const;

  std::vector<Choice> choices_;  // prompt * n + choice
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_COMPLETION_H_
