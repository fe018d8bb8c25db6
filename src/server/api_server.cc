#include "server/api_server.h"

#include <chrono>
#include <random>
#include <thread>

#include "base/log.h"
#include "server/monitor/metered_engine.h"
#include "server/native/generate.h"
#include "server/openai/chat_completion.h"
#include "server/openai/schema.h"
#include "server/openai/tokenize.h"

namespace lapidary {
namespace {

constexpr unsigned kGet = 1, kPost = 2;
constexpr std::chrono::seconds kAbortTime{2};
constexpr std::chrono::milliseconds kFailTime{800}, kWriteTime{200};

HttpResponse NotReady(ServerState state) {
  if (state == ServerState::kDraining) return Refusal(503, "The server is stopping.", "draining");
  if (state == ServerState::kFailing) return Refusal(503, "The server is failing.", "failing");
  return Refusal(503, "The model is still loading.", "loading");
}

// It is echoed in a header.
bool IsRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return (std::isalnum(c) != 0 && c < 0x80) ||
           std::string_view("._:-").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

HttpResponse BadField(const Error& error) {
  if (error.code == "model_not_found") return ErrorResponse(404, error, "not_found_error");
  return ErrorResponse(400, error, "invalid_request_error");
}

std::string RandomId(const char* prefix) {
  static thread_local std::mt19937_64 engine{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, engine(), engine() >> 32);
}

}  // namespace

struct ApiServer::Route {
  std::string_view path;  // one that ends in '/' stands for all below it
  unsigned methods;
  RouteAccess access;
  bool needs_model;
  void (ApiServer::*handler)(const HttpRequest&, const ExchangePtr&);
};

const ApiServer::Route ApiServer::kRoutes[] = {
    {"/health", kGet, RouteAccess::kOpen, false, &ApiServer::Health},
    {"/v1/health", kGet, RouteAccess::kOpen, false, &ApiServer::Health},
    {"/ready", kGet, RouteAccess::kOpen, false, &ApiServer::Health},
    {"/ping", kGet, RouteAccess::kOpen, false, &ApiServer::Health},
    {"/live", kGet, RouteAccess::kOpen, false, &ApiServer::Health},
    {"/metrics", kGet, RouteAccess::kMetrics, false, &ApiServer::Metrics},
    {"/health_generate", kGet, RouteAccess::kKey, true, &ApiServer::HealthGenerate},
    {"/version", kGet, RouteAccess::kKey, false, &ApiServer::Version},
    {"/v1/models", kGet, RouteAccess::kKey, false, &ApiServer::Models},
    {"/v1/models/", kGet, RouteAccess::kKey, false, &ApiServer::Models},
    {"/server_info", kGet, RouteAccess::kKey, true, &ApiServer::Info},
    {"/get_server_info", kGet, RouteAccess::kKey, true, &ApiServer::Info},
    {"/model_info", kGet, RouteAccess::kKey, true, &ApiServer::Info},
    {"/get_model_info", kGet, RouteAccess::kKey, true, &ApiServer::Info},
    {"/tokenizer_info", kGet, RouteAccess::kKey, true, &ApiServer::Info},
    {"/load", kGet, RouteAccess::kKey, true, &ApiServer::Load},
    {"/v1/loads", kGet, RouteAccess::kKey, true, &ApiServer::Load},
    {"/get_load", kGet, RouteAccess::kKey, true, &ApiServer::Load},
    {"/flush_cache", kGet | kPost, RouteAccess::kAdmin, true, &ApiServer::FlushCache},
    {"/reset_prefix_cache", kPost, RouteAccess::kAdmin, true, &ApiServer::FlushCache},
    {"/start_profile", kPost, RouteAccess::kAdmin, true, &ApiServer::Profile},
    {"/stop_profile", kPost, RouteAccess::kAdmin, true, &ApiServer::Profile},
    {"/abort_request", kPost, RouteAccess::kKey, true, &ApiServer::AbortRequest},
    {"/v1/completions", kPost, RouteAccess::kKey, true, &ApiServer::Completions},
    {"/v1/chat/completions", kPost, RouteAccess::kKey, true, &ApiServer::ChatCompletions},
    {"/generate", kPost, RouteAccess::kKey, true, &ApiServer::NativeGenerate},
    {"/tokenize", kPost, RouteAccess::kKey, true, &ApiServer::TokenizeRoute},
    {"/detokenize", kPost, RouteAccess::kKey, true, &ApiServer::TokenizeRoute},
};

const ApiServer::Route* ApiServer::FindRoute(const std::string& path) {
  for (const Route& route : kRoutes)
    if (path == route.path || (route.path.ends_with('/') && path.starts_with(route.path)))
      return &route;
  return nullptr;
}

ApiServer::ApiServer(const ApiOptions& options)
    : options_(options),
      access_(options),
      monitor_(options),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {
  profiler_ = std::make_unique<Profiler>(options.profile_dir);
  http_ = Listen(options.port, options.num_threads, false);
  if (options.health_port >= 0) health_ = Listen(options.health_port, 1, true);
}

// Replies in flight are ended first. The engine goes once no thread calls it any more, and while
// the io contexts are still there: it holds the replies that did not end in time, and they their
// connections.
ApiServer::~ApiServer() {
  state_ = ServerState::kDraining;
  live_->Abort(nullptr, nullptr);
  const auto end = std::chrono::steady_clock::now() + kAbortTime;
  while (live_->size() > 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (health_) health_->Stop();
  http_->Stop();
  admin_.reset();
  profiler_.reset();
  engine_.reset();
}

std::unique_ptr<HttpServer> ApiServer::Listen(int port, int num_threads, bool health_only) {
  return std::make_unique<HttpServer>(
      options_.host, port, num_threads, options_.limits,
      [this, health_only](const std::shared_ptr<HttpRequest>& request,
                          const ExchangePtr& exchange) {
        const Route* route = FindRoute(request->path);
        if (health_only && (route == nullptr || route->access != RouteAccess::kOpen))
          return exchange->Respond(Refusal(404, "This port serves health only.", "not_found"));
        Handle(*request, exchange);
      },
      [](int status, std::string_view message) {
        return ErrorResponse(status, Error{std::string(message), "", "http"},
                             "invalid_request_error");
      });
}

void ApiServer::SetProgress(uint64_t done_bytes, uint64_t total_bytes) {
  loaded_bytes_ = done_bytes;
  total_bytes_ = total_bytes;
}

void ApiServer::Attach(std::shared_ptr<TokenEngine> engine, Backend backend) {
  CHECK(engine_ == nullptr, "a second engine for one server");
  engine_ = std::make_unique<MeteredEngine>(std::move(engine), monitor_.requests());
  backend.engine = engine_.get();
  backend.count_slips = [metrics = monitor_.requests()](const SlipCounts& slips) {
    metrics->Slipped(slips);
  };
  {
    const std::lock_guard lock(mutex_);
    backend_ = std::make_shared<const Backend>(std::move(backend));
  }
  state_ = ServerState::kReady;
}

void ApiServer::Fail() {
  state_ = ServerState::kFailing;
  live_->EndAll(NotReady(ServerState::kFailing), kFailTime);
  std::this_thread::sleep_for(kWriteTime);
}

std::shared_ptr<const Backend> ApiServer::backend() const {
  const std::lock_guard lock(mutex_);
  return backend_;
}

void ApiServer::Handle(const HttpRequest& request, const ExchangePtr& exchange) {
  const Route* route = FindRoute(request.path);
  const bool is_known =
      request.method == "GET" || request.method == "HEAD" || request.method == "POST";
  // Names that clients choose would be labels without bound.
  const ExchangePtr metered =
      monitor_.http()->Metered(exchange, route == nullptr ? "none" : std::string(route->path),
                               is_known ? request.method : "other");
  if (auto refusal = access_.Refuse(request, route == nullptr ? RouteAccess::kKey : route->access))
    return metered->Respond(*std::move(refusal));
  if (route == nullptr)
    return metered->Respond(Refusal(404, "There is no such route.", "not_found"));
  Serve(*route, request, metered);
}

void ApiServer::Serve(const Route& route, const HttpRequest& request, const ExchangePtr& exchange) {
  const unsigned method = request.method == "POST"                              ? kPost
                          : request.method == "GET" || request.method == "HEAD" ? kGet
                                                                                : 0;
  if ((route.methods & method) == 0) {
    HttpResponse response = Refusal(405, "The route has another method.", "method_not_allowed");
    const bool gets = (route.methods & kGet) != 0, posts = (route.methods & kPost) != 0;
    response.headers.emplace_back("Allow", gets && posts ? "GET, HEAD, POST"
                                           : posts       ? "POST"
                                                         : "GET, HEAD");
    return exchange->Respond(std::move(response));
  }
  if (route.needs_model && state_ != ServerState::kReady)
    return exchange->Respond(NotReady(state_));
  (this->*route.handler)(request, exchange);
}

Result<json::object> ApiServer::Checked(const HttpRequest& request, unsigned endpoint) {
  Result<json::value> body = ParseJson(request.body, "The body");
  if (!body.ok()) return body.error();
  if (!body.value().is_object()) return Error{"The body must be an object.", "", "invalid_json"};
  const std::shared_ptr<const Backend> current = backend();
  Result<CheckedFields> checked =
      CheckFields(body.value().get_object(), endpoint,
                  {current->engine->vocab_size(), current->engine->max_model_len()});
  if (!checked.ok()) return checked.error();
  auto num_ignored = static_cast<int64_t>(checked.value().unknown.size());
  if (current->priority_order == PriorityOrder::kNone &&
      checked.value().values.contains("priority"))
    ++num_ignored;
  if (num_ignored > 0 && num_ignored_fields_.fetch_add(num_ignored) == 0)
    LogWarning(
        "unknown request fields, and priorities without --scheduling-policy priority, are ignored "
        "and counted; this is said once");
  json::object fields = std::move(checked.value().values);
  if (const json::value* model = fields.if_contains("model")) {
    bool served = options_.serves_any_name;
    for (const std::string& name : options_.served_names)
      served |= std::string_view(model->get_string()) == name;
    if (!served) return Error{"The model is not served here.", "model", "model_not_found"};
  }
  return fields;
}

ReplyForm ApiServer::NewForm(const json::object& fields, const HttpRequest& request,
                             const char* prefix) const {
  ReplyForm form;
  form.caller_salt = access_.SaltOf(request);
  // Gateways send one; the field wins.
  const std::string_view given = request.header("x-request-id");
  form.id = IsRequestId(given) ? std::string(given) : RandomId(prefix);
  form.created = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  const json::value* model = fields.if_contains("model");
  form.model = model ? std::string(model->get_string()) : options_.served_names[0];
  return form;
}

void ApiServer::Begin(const ReplyForm& form, const ExchangePtr& exchange,
                      std::unique_ptr<Reply> made, std::vector<Request> requests) {
  if (!IsRequestId(form.id))
    return exchange->Respond(BadField(
        {"An id has 1 to 128 letters, digits and any of . _ : -", "request_id", "invalid_value"}));
  const std::shared_ptr<Reply> reply = live_->Add(std::move(made), form.id, form.caller_salt);
  if (reply == nullptr)
    return exchange->Respond(BadField({"A request with this id runs.", "request_id", "duplicate"}));
  reply->Start(std::move(requests));
}

void ApiServer::Completions(const HttpRequest& request, const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(request, kCompletions);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  ReplyForm form = NewForm(fields.value(), request, "cmpl-");
  const std::shared_ptr<const Backend> current = backend();
  Result<std::vector<Request>> requests = MakeRequests(fields.value(), *current, form);
  if (!requests.ok()) return exchange->Respond(BadField(requests.error()));
  Begin(form, exchange, std::make_unique<Completion>(current, exchange, form),
        std::move(requests).value());
}

void ApiServer::ChatCompletions(const HttpRequest& http, const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(http, kChat);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  ReplyForm form = NewForm(fields.value(), http, "chatcmpl-");
  ChatForm chat;
  const std::shared_ptr<const Backend> current = backend();
  Result<Request> request = MakeChatRequest(fields.value(), *current, form, chat);
  if (!request.ok()) return exchange->Respond(BadField(request.error()));
  Begin(form, exchange, std::make_unique<ChatCompletion>(current, exchange, form, std::move(chat)),
        {std::move(request).value()});
}

void ApiServer::NativeGenerate(const HttpRequest& request, const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(request, kNative);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  ReplyForm form = NewForm(fields.value(), request, "");
  GenerateForm native;
  const std::shared_ptr<const Backend> current = backend();
  Result<std::vector<Request>> requests =
      MakeNativeRequests(fields.value(), *current, form, native);
  if (!requests.ok()) return exchange->Respond(BadField(requests.error()));
  Begin(form, exchange, std::make_unique<Generate>(current, exchange, form, native),
        std::move(requests).value());
}

void ApiServer::TokenizeRoute(const HttpRequest& request, const ExchangePtr& exchange) {
  const bool encodes = request.path == "/tokenize";
  const Result<json::object> fields = Checked(request, encodes ? kTokenize : kDetokenize);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  const Result<json::object> reply =
      encodes ? Tokenize(fields.value(), *backend()) : Detokenize(fields.value(), *backend());
  exchange->Respond(reply.ok() ? JsonResponse(reply.value()) : BadField(reply.error()));
}

}  // namespace lapidary
