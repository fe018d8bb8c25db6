#include <condition_variable>
#include <deque>
#include <mutex>

#include "app/chat/chat_partner.h"
#include "app/chat/sse_reader.h"
#include "server/openai/chat_completion.h"
#include "server/openai/schema.h"

namespace lapidary {
namespace {

constexpr std::chrono::milliseconds kInterruptPoll{50};

// An exchange without a socket: its strand is the thread that calls Run.
class LocalExchange : public Exchange {
 public:
  void Respond(HttpResponse response) override {
    if (!over_) body_ = std::move(response.body);
    over_ = true;
  }
  void StartStream(std::vector<std::pair<std::string, std::string>>) override { streaming_ = true; }
  void Write(std::string bytes) override {
    if (streaming_) bytes_ += bytes;
  }
  void Finish() override { over_ |= streaming_; }
  void OnClose(std::function<void()> callback) override { on_close_ = std::move(callback); }
  void Post(std::function<void()> task) override {
    const std::lock_guard lock(mutex_);
    if (!abandoned_) tasks_.push_back(std::move(task));
    changed_.notify_one();
  }

  // Runs what is posted until the answer is complete, an event is bad or `interrupted` says true.
  Status Run(const ChatPartner::OnEvent& on_event, const ChatPartner::Interrupted& interrupted) {
    SseReader reader;
    Status status = Ok{};
    while (status.ok() && !over_ && !interrupted()) {
      RunTasks();
      status = GiveEvents(reader, std::exchange(bytes_, {}), on_event);
    }
    if (!over_ && on_close_) on_close_();
    Abandon();
    if (!status.ok() || body_.empty()) return status;
    const Result<json::value> refusal = ParseJson(body_, "the refusal");
    return Error{refusal.ok() ? ErrorMessage(refusal.value()) : body_, "", ""};
  }

 private:
  void RunTasks() {
    std::deque<std::function<void()>> tasks;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kInterruptPoll, [this] { return !tasks_.empty(); });
      tasks.swap(tasks_);
    }
    for (const std::function<void()>& task : tasks) task();
  }
  // Tasks that come later own the reply, which owns this: they are dropped.
  void Abandon() {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    tasks_.clear();
    on_close_ = nullptr;
  }

  bool streaming_ = false, over_ = false;
  std::string bytes_, body_;
  std::function<void()> on_close_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_, as is abandoned_
  bool abandoned_ = false;
};

class LocalPartner : public ChatPartner {
 public:
  LocalPartner(std::shared_ptr<TokenEngine> engine, Backend backend) : engine_(std::move(engine)) {
    backend.engine = engine_.get();
    backend_ = std::make_shared<const Backend>(std::move(backend));
  }

  Status Stream(const json::object& body, const OnEvent& on_event,
                const Interrupted& interrupted) override {
    const FieldLimits limits{engine_->vocab_size(), engine_->max_model_len()};
    const Result<CheckedFields> fields = CheckFields(body, kChat, limits);
    if (!fields.ok()) return fields.error();
    ReplyForm form;
    ChatForm chat;
    Result<Request> request = MakeChatRequest(fields.value().values, *backend_, form, chat);
    if (!request.ok()) return request.error();
    const auto exchange = std::make_shared<LocalExchange>();
    std::make_shared<ChatCompletion>(backend_, exchange, std::move(form), std::move(chat))
        ->Start({std::move(request).value()});
    return exchange->Run(on_event, interrupted);
  }

 private:
  std::shared_ptr<TokenEngine> engine_;
  std::shared_ptr<const Backend> backend_;
};

}  // namespace

std::unique_ptr<ChatPartner> MakeLocalPartner(std::shared_ptr<TokenEngine> engine,
                                              Backend backend) {
  return std::make_unique<LocalPartner>(std::move(engine), std::move(backend));
}

}  // namespace lapidary
