// The routes of ApiServer that generate nothing for anybody: health, facts, load, upkeep.
#include <algorithm>
#include <charconv>

#include "server/api_server.h"
#include "server/openai/tokenize.h"

namespace lapidary {
namespace {

constexpr int kMaxWaitSeconds = 3600;

HttpResponse BadValue(const char* message, const char* param) {
  return ErrorResponse(400, Error{message, param, "invalid_value"}, "invalid_request_error");
}

// `timeout` of a query, whole seconds; 0 without one, -1 when it is none.
int TimeoutOf(std::string_view query) {
  constexpr std::string_view kName = "timeout=";
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    if (!part.starts_with(kName)) continue;
    const std::string_view text = part.substr(kName.size());
    double seconds = -1;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    const bool good = code == std::errc() && end == text.data() + text.size() && 0 <= seconds &&
                      seconds <= kMaxWaitSeconds;
    return good ? static_cast<int>(seconds) : -1;
  }
  return 0;
}

}  // namespace

HttpResponse ApiServer::HealthOf(bool liveness) const {
  const ServerState state = state_;
  const char* name = state == ServerState::kLoading    ? "loading"
                     : state == ServerState::kReady    ? "ok"
                     : state == ServerState::kDraining ? "draining"
                                                       : "failing";
  if (state == ServerState::kReady && !MakesProgress(backend()->engine->stats())) name = "stalled";
  json::object body{{"status", name}};
  if (state == ServerState::kLoading && total_bytes_ > 0) {
    body["loaded_bytes"] = loaded_bytes_.load();
    body["total_bytes"] = total_bytes_.load();
  }
  HttpResponse response = JsonResponse(body);
  const bool good = liveness ? state != ServerState::kFailing : std::string_view(name) == "ok";
  if (!good) response.status = 503;
  return response;
}

void ApiServer::Health(const HttpRequest& request, const ExchangePtr& exchange) {
  exchange->Respond(HealthOf(request.path == "/live"));
}

// Idle, a token is generated; busy, the others' progress tells enough.
void ApiServer::HealthGenerate(const HttpRequest&, const ExchangePtr& exchange) {
  const std::shared_ptr<const Backend> current = backend();
  const EngineStats stats = current->engine->stats();
  if (stats.num_running + stats.num_queued > 0) return exchange->Respond(HealthOf(false));
  Request request;
  request.id = NextRequestId();
  const auto bos = current->tokenizer == nullptr ? std::nullopt : current->tokenizer->Find("<bos>");
  request.prompt = {bos.value_or(0)};
  request.max_tokens = 1;
  const uint64_t id = request.id;
  const Status status = current->engine->Submit(std::move(request), [exchange](TokenEvent&& event) {
    if (event.finish == FinishReason::kNone) return;
    const bool good = event.finish == FinishReason::kLength || event.finish == FinishReason::kStop;
    HttpResponse response = JsonResponse(json::object{{"status", good ? "ok" : "failing"}});
    if (!good) response.status = 503;
    exchange->Respond(std::move(response));
  });
  if (!status.ok())
    return exchange->Respond(ErrorResponse(503, status.error(), "overloaded_error"));
  exchange->OnClose([current, id] { current->engine->Cancel(id); });
}

void ApiServer::Models(const HttpRequest& request, const ExchangePtr& exchange) {
  const std::shared_ptr<const Backend> current = backend();
  json::array entries;
  for (const std::string& name : options_.served_names) {
    json::object entry{{"id", name},          {"object", "model"},
                       {"created", created_}, {"owned_by", "lapidary"},
                       {"root", name},        {"parent", nullptr}};
    entry["max_model_len"] = current ? json::value(current->engine->max_model_len()) : nullptr;
    entry["architecture"] = json::object{{"input_modalities", json::array{"text"}}};
    if (request.path == "/v1/models/" + name) return exchange->Respond(JsonResponse(entry));
    entries.push_back(std::move(entry));
  }
  if (request.path != "/v1/models")
    return exchange->Respond(Refusal(404, "There is no such model.", "model_not_found"));
  exchange->Respond(JsonResponse(json::object{{"object", "list"}, {"data", std::move(entries)}}));
}

void ApiServer::Version(const HttpRequest&, const ExchangePtr& exchange) {
  exchange->Respond(JsonResponse(json::object{{"version", options_.version}}));
}

void ApiServer::Metrics(const HttpRequest&, const ExchangePtr& exchange) {
  const std::shared_ptr<const Backend> current = backend();
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = monitor_.MetricsPage(current ? current->engine : nullptr, num_ignored_fields_);
  exchange->Respond(std::move(response));
}

void ApiServer::Info(const HttpRequest& request, const ExchangePtr& exchange) {
  const std::shared_ptr<const Backend> current = backend();
  if (request.path == "/tokenizer_info")
    return exchange->Respond(current->tokenizer == nullptr
                                 ? Refusal(404, "This server has no tokenizer.", "not_found")
                                 : JsonResponse(TokenizerInfo(*current)));
  if (request.path.ends_with("model_info"))
    return exchange->Respond(JsonResponse(monitor_.ModelInfo()));
  exchange->Respond(JsonResponse(monitor_.ServerInfo(*current->engine, current->started_with)));
}

void ApiServer::Load(const HttpRequest& request, const ExchangePtr& exchange) {
  const std::shared_ptr<const Backend> current = backend();
  if (request.path == "/load")
    return exchange->Respond(JsonResponse(json::object{{"server_load", live_->size()}}));
  if (request.path == "/v1/loads")
    return exchange->Respond(JsonResponse(monitor_.Loads(*current->engine)));
  const EngineStats stats = current->engine->stats();
  exchange->Respond(
      JsonResponse(json::array{json::object{{"dp_rank", 0},
                                            {"num_reqs", stats.num_running + stats.num_queued},
                                            {"num_waiting_reqs", stats.num_queued},
                                            {"num_tokens", stats.full_pages * kPageTokens}}}));
}

void ApiServer::FlushCache(const HttpRequest& request, const ExchangePtr& exchange) {
  const int timeout_s = TimeoutOf(request.query);
  if (timeout_s < 0)
    return exchange->Respond(BadValue("'timeout' must be 0 to 3600 seconds.", "timeout"));
  const bool posted = admin_->Post([this, exchange, timeout_s, current = backend()] {
    const auto is_idle = [&] {
      const EngineStats stats = current->engine->stats();
      return stats.num_running + stats.num_queued == 0;
    };
    const bool idle = timeout_s == 0 || admin_->WaitUntil(is_idle, std::chrono::seconds(timeout_s));
    const int64_t num_pages = current->engine->FlushCache();
    monitor_.ResetAcceptance(current->engine->stats());
    exchange->Respond(JsonResponse(
        json::object{{"success", true}, {"flushed_pages", num_pages}, {"was_idle", idle}}));
  });
  if (!posted)
    exchange->Respond(ErrorResponse(429, Error{"Too many of these wait already.", "", "queue_full"},
                                    "rate_limit_error"));
}

void ApiServer::Profile(const HttpRequest& request, const ExchangePtr& exchange) {
  const auto answer = [&](const Result<json::object>& result) {
    if (result.ok()) return exchange->Respond(JsonResponse(result.value()));
    const Error& error = result.error();
    const bool is_ours = error.code.empty();
    exchange->Respond(ErrorResponse(is_ours ? 500 : 400, error,
                                    is_ours ? "server_error" : "invalid_request_error"));
  };
  if (request.path == "/stop_profile") return answer(profiler_->Stop());
  json::value body = json::object();
  if (!request.body.empty()) {
    Result<json::value> parsed = ParseJson(request.body, "The body");
    if (!parsed.ok() || !parsed.value().is_object())
      return exchange->Respond(BadValue("The body must be an object.", ""));
    body = std::move(parsed).value();
  }
  answer(profiler_->Start(body.get_object(),
                          [current = backend()] { return current->engine->stats(); }));
}

// A caller ends its own requests; all of everybody's are the admin's to end.
void ApiServer::AbortRequest(const HttpRequest& request, const ExchangePtr& exchange) {
  const Result<json::value> body = ParseJson(request.body, "The body");
  const json::object* fields = body.ok() ? body.value().if_object() : nullptr;
  if (fields == nullptr) return exchange->Respond(BadValue("The body must be an object.", ""));
  const json::value* rid = fields->if_contains("rid");
  const json::value* all = fields->if_contains("abort_all");
  if (all != nullptr && !all->is_bool())
    return exchange->Respond(BadValue("'abort_all' must be true or false.", "abort_all"));
  int num_aborted = 0;
  if (all != nullptr && all->get_bool()) {
    if (!access_.IsAdmin(request))
      return exchange->Respond(
          Refusal(403, "'abort_all' needs the admin's API key.", "admin_only"));
    num_aborted = live_->Abort(nullptr, nullptr);
  } else {
    if (rid == nullptr || !rid->is_string())
      return exchange->Respond(BadValue("'rid' must be a request's id.", "rid"));
    const std::string id(rid->get_string());
    const CacheSalt owner = access_.SaltOf(request);
    num_aborted = live_->Abort(&id, &owner);
  }
  exchange->Respond(JsonResponse(json::object{{"success", true}, {"num_aborted", num_aborted}}));
}

}  // namespace lapidary
