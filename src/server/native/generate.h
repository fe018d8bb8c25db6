// Generate: one POST /generate in SGLang's native form, from its body to its last byte.
#ifndef LAPIDARY_SERVER_NATIVE_GENERATE_H_
#define LAPIDARY_SERVER_NATIVE_GENERATE_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "server/http/exchange.h"
#include "server/openai/completion.h"

namespace lapidary {

// What a reply of /generate depends on beside the requests and the form of every reply.
struct GenerateForm {
  bool is_list = false;    // a list in gives a list out
  bool logprobs = false;   // return_logprob
  int logprob_start = -1;  // of the prompt; -1: none
  bool text_in_logprobs = false;
};

// One request per prompt, from fields checked against the table's kNative rows. Errors name the
// field, those of sampling_params with their path.
Result<std::vector<Request>> MakeNativeRequests(const json::object& fields, const Backend& backend,
                                                ReplyForm& form, GenerateForm& native);

// In a stream each event holds the whole text and all ids so far.
class Generate : public Reply {
 public:
  Generate(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange,
           ReplyForm form, GenerateForm native)
      : Reply(std::move(backend), std::move(exchange), std::move(form)), native_(native) {}

 private:
  struct Choice {
    explicit Choice(const ReplyForm& form) : stops(form.stops, form.keep_stop) {}
    std::optional<Detokenizer> detokenizer;
    StopMatcher stops;
    std::string text;
    std::vector<int32_t> ids;
    json::value finish;  // null while it runs
    json::array input_logprobs, input_top, output_logprobs, output_top;
    ChoiceUsage usage;
  };

  size_t MakeChoices() override;
  void OnEvent(size_t prompt, TokenEvent event) override;
  // How many of the event's tokens the choice keeps.
  int TakeTokens(Choice& choice, const TokenEvent& event);
  void AddInputLogprobs(Choice& choice, size_t prompt, const TokenEvent& event);
  json::array Entry(std::optional<float> logprob, int32_t id) const;
  json::value TopEntries(const TokenLogprobs& entry) const;
  json::object ReplyOf(size_t prompt, size_t choice) const;
  void FinishAll() override;

  const GenerateForm native_;
  std::vector<Choice> choices_;  // prompt * n + choice
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_NATIVE_GENERATE_H_
