#include "server/monitor/http_metrics.h"

#include <atomic>
#include <chrono>
#include <utility>

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kClientClosed = 499;

// What is known of one answer; the exchange and its close callback share it.
class Answer {
 public:
  Answer(std::shared_ptr<HttpMetrics> metrics, std::string handler, std::string method)
      : metrics_(std::move(metrics)), handler_(std::move(handler)), method_(std::move(method)) {}
  void Is(int status) {
    if (counted_.exchange(true)) return;
    metrics_->Answered(handler_, method_, status,
                       std::chrono::duration<double>(Clock::now() - start_).count());
  }

 private:
  std::shared_ptr<HttpMetrics> metrics_;
  std::string handler_, method_;
  Clock::time_point start_ = Clock::now();
  std::atomic<bool> counted_{false};
};

class MeteredExchange : public Exchange {
 public:
  MeteredExchange(std::shared_ptr<Exchange> exchange, std::shared_ptr<Answer> answer)
      : exchange_(std::move(exchange)), answer_(std::move(answer)) {}
  void Respond(HttpResponse response) override {
    answer_->Is(response.status);
    exchange_->Respond(std::move(response));
  }
  void StartStream(std::vector<std::pair<std::string, std::string>> headers) override {
    streams_ = true;
    exchange_->StartStream(std::move(headers));
  }
  void Write(std::string bytes) override { exchange_->Write(std::move(bytes)); }
  void Finish() override {
    if (streams_) answer_->Is(200);
    exchange_->Finish();
  }
  void Post(std::function<void()> task) override { exchange_->Post(std::move(task)); }
  void OnClose(std::function<void()> callback) override {
    exchange_->OnClose([answer = answer_, callback = std::move(callback)] {
      answer->Is(kClientClosed);
      callback();
    });
  }

 private:
  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<Answer> answer_;
  std::atomic<bool> streams_{false};
};

}  // namespace

void HttpMetrics::Answered(const std::string& handler, const std::string& method, int status,
                           double seconds) {
  duration_.Observe(seconds);
  const std::lock_guard lock(mutex_);
  ++answers_[{handler, method, status}];
}

void HttpMetrics::WriteTo(MetricsText& page) const {
  page.Family("http_request_duration_seconds", "histogram",
              "Seconds from a request to its answer.");
  page.Histogram(duration_.Collect().histogram);
  page.Family("http_requests_total", "counter", "Answers by route, method and status.");
  const std::lock_guard lock(mutex_);
  for (const auto& [key, count] : answers_)
    page.Sample(count, {{"handler", std::get<0>(key)},
                        {"method", std::get<1>(key)},
                        {"status", std::to_string(std::get<2>(key))}});
}

std::shared_ptr<Exchange> HttpMetrics::Metered(std::shared_ptr<Exchange> exchange,
                                               std::string handler, std::string method) {
  return std::make_shared<MeteredExchange>(
      std::move(exchange),
      std::make_shared<Answer>(shared_from_this(), std::move(handler), std::move(method)));
}

}  // namespace lapidary
