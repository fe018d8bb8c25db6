// The body of a request: refused with a short error, or requests whose tokens the engine can run.
#include "base/check.h"
#include "server/openai/chat_request.h"
#include "server/openai/completion.h"
#include "server/openai/schema.h"

namespace lapidary {
namespace {

constexpr int kMaxModelLen = 2048;

class NoEngine : public TokenEngine {
 public:
  explicit NoEngine(int vocab_size) : vocab_size_(vocab_size) {}
  Status Submit(Request, TokenSink) override { return Ok{}; }
  void Cancel(uint64_t) override {}
  void CancelChoice(uint64_t, int) override {}
  int vocab_size() const override { return vocab_size_; }
  int max_model_len() const override { return kMaxModelLen; }
  int64_t FlushCache() override { return 0; }
  EngineStats stats() const override { return {}; }

 private:
  int vocab_size_;
};

Backend MakeBackend() {
  Backend backend;
  backend.tokenizer = std::make_shared<Tokenizer>(
      Tokenizer::Load(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble").value());
  static NoEngine engine(backend.tokenizer->vocab_size());
  backend.engine = &engine;
  return backend;
}

void ExpectRunnable(const Request& request, int vocab_size) {
  CHECK(!request.prompt.empty() && request.prompt.size() < kMaxModelLen, "prompt");
  for (const int32_t id : request.prompt) CHECK(0 <= id && id < vocab_size, "id {}", id);
  CHECK(request.max_tokens >= 0 &&
            static_cast<size_t>(request.max_tokens) + request.prompt.size() <= kMaxModelLen,
        "max_tokens {}", request.max_tokens);
  CHECK(request.num_choices >= 1 && request.num_choices <= kMaxChoices, "choices");
}

void ExpectShort(const Error& error) {
  CHECK(!error.message.empty() && !error.code.empty(), "an error without words");
  CHECK(ErrorResponse(400, error, "invalid_request_error").body.size() <= 512, "{}", error.message);
}

template <typename Make>
void Run(const json::object& body, const Backend& backend, unsigned endpoint, const Make& make) {
  const int vocab_size = backend.engine->vocab_size();
  const auto fields = CheckFields(body, endpoint, {vocab_size, kMaxModelLen});
  if (!fields.ok()) return ExpectShort(fields.error());
  const Result<std::vector<Request>> requests = make(fields.value().values);
  if (!requests.ok()) return ExpectShort(requests.error());
  for (const Request& request : requests.value()) ExpectRunnable(request, vocab_size);
}

}  // namespace
}  // namespace lapidary

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  static const Backend backend = MakeBackend();
  const auto body = ParseJson({reinterpret_cast<const char*>(data), size}, "The body");
  if (!body.ok()) {
    ExpectShort(body.error());
    return 0;
  }
  if (!body.value().is_object()) return 0;
  const json::object& object = body.value().get_object();
  Run(object, backend, kCompletions, [](const json::object& fields) {
    ReplyForm form;
    return MakeRequests(fields, backend, form);
  });
  Run(object, backend, kChat, [](const json::object& fields) -> Result<std::vector<Request>> {
    ReplyForm form;
    ChatForm chat;
    Result<Request> request = MakeChatRequest(fields, backend, form, chat);
    if (!request.ok()) return request.error();
    return std::vector<Request>{std::move(request).value()};
  });
  return 0;
}
