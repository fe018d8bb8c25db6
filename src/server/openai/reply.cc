#include "server/openai/reply.h"

#include <utility>

namespace lapidary {

// SplitMix64 over the count: neighbours share no bits.
uint64_t SeedSequence::Next() {
  uint64_t z = start_ + (num_drawn_.fetch_add(1) + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t NextRequestId() {
  static std::atomic<uint64_t> next{1};
  return next++;
}

HttpResponse JsonResponse(const json::value& value) {
  HttpResponse response;
  response.body = json::serialize(value);
  return response;
}

HttpResponse ErrorResponse(int status, const Error& error, const char* type) {
  const std::string message = ToValidUtf8(error.message.substr(0, 256));
  const std::string param = ToValidUtf8(error.param.substr(0, 64));
  json::object body{{"message", message}, {"type", type}, {"param", nullptr}, {"code", nullptr}};
  if (!param.empty()) body["param"] = param;
  if (!error.code.empty()) body["code"] = error.code;
  HttpResponse response;
  response.status = status;
  response.body = json::serialize(json::object{{"error", body}});
  if (status == 429 || status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

HttpResponse EngineRefusal(const Error& error, const TokenEngine& engine) {
  if (error.code != "queue_full") return ErrorResponse(400, error, "invalid_request_error");
  HttpResponse response = ErrorResponse(429, error, "rate_limit_error");
  response.headers.back().second = std::to_string(engine.retry_after_s());
  return response;
}

HttpResponse NumericalError() {
  return ErrorResponse(500, Error{"The model's own numbers failed.", "", "numerical_error"},
                       "api_error");
}

void Reply::Start(std::vector<Request> requests) {
  requests_ = std::move(requests);
  num_open_ = MakeChoices();
  for (size_t i = 0; i < requests_.size(); ++i) {
    requests_[i].id = NextRequestId();
    const Status status =
        backend_->engine->Submit(requests_[i], [self = shared_from_this(), i](TokenEvent&& event) {
          auto shared = std::make_shared<TokenEvent>(std::move(event));
          self->exchange_->Post([self, i, shared] { self->Take(i, std::move(*shared)); });
        });
    if (!status.ok()) return Fail(EngineRefusal(status.error(), *backend_->engine));
  }
  // Weak: the exchange must not keep itself alive through its own callback.
  exchange_->OnClose([weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->done_ = true;
      self->CancelAll();
    }
  });
  if (form_.stream) exchange_->StartStream({{"X-Request-Id", form_.id}});
}

void Reply::Take(size_t prompt, TokenEvent event) {
  if (done_) return;
  if (event.finish == FinishReason::kError) return Fail(NumericalError());
  OnEvent(prompt, std::move(event));
}

void Reply::Respond(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  response.headers.emplace_back("X-Request-Id", form_.id);
  exchange_->Respond(std::move(response));
}

void Reply::Fail(HttpResponse response) {
  Conclude(std::move(response));
  CancelAll();
}

void Reply::End(const HttpResponse& error, std::function<void()> then) {
  exchange_->Post([self = shared_from_this(), error, then = std::move(then)] {
    if (!self->done_) self->Conclude(error);
    then();
  });
}

void Reply::Conclude(HttpResponse response) {
  done_ = true;
  // Respond is dropped once a stream has begun, Write before it: one of the two arrives.
  exchange_->Write("data: " + response.body + "\n\ndata: [DONE]\n\n");
  exchange_->Finish();
  exchange_->Respond(std::move(response));
}

void Reply::Abort() {
  exchange_->Post([self = shared_from_this()] { self->CancelAll(); });
}

void Reply::CancelAll() {
  for (const Request& request : requests_)
    if (request.id != 0) backend_->engine->Cancel(request.id);
}

}  // namespace lapidary
