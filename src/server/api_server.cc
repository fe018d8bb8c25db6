#include "server/api_server.h"

#include <chrono>
#include <random>

#include "base/log.h"
#include "base/sha256.h"
#include "server/native/generate.h"
#include "server/openai/chat_completion.h"
#include "server/openai/schema.h"
#include "server/openai/tokenize.h"

namespace lapidary {
namespace {

HttpResponse Json(const json::value& value) {
  HttpResponse response;
  response.body = json::serialize(value);
  return response;
}

HttpResponse Refusal(int status, const char* message, const char* code) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 403 ? "permission_error"
                     : status == 404 ? "not_found_error"
                     : status == 503 ? "overloaded_error"
                                     : "invalid_request_error";
  return ErrorResponse(status, Error{message, "", code}, type);
}

HttpResponse NotReady(ServerState state) {
  if (state == ServerState::kDraining) return Refusal(503, "The server is stopping.", "draining");
  if (state == ServerState::kFailing) return Refusal(503, "The server is failing.", "failing");
  return Refusal(503, "The model is still loading.", "loading");
}

HttpResponse BadField(const Error& error) {
  if (error.code == "model_not_found") return ErrorResponse(404, error, "not_found_error");
  return ErrorResponse(400, error, "invalid_request_error");
}

std::string_view HostName(std::string_view authority) {
  if (authority.starts_with('[')) return authority.substr(0, authority.find(']') + 1);
  return authority.substr(0, authority.find(':'));
}

bool IsLoopbackName(std::string_view name) {
  return name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == "::1";
}

// Looks at every byte whatever the first difference.
bool EqualInConstantTime(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    difference |=
        static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^
                              static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]));
  return difference == 0;
}

// The routes without a key.
bool IsHealth(std::string_view path) {
  return path == "/health" || path == "/v1/health" || path == "/ready" || path == "/ping" ||
         path == "/live";
}

std::string RandomBytes(size_t count) {
  std::random_device device;
  std::string bytes;
  while (bytes.size() < count) bytes += static_cast<char>(device() & 0xff);
  return bytes;
}

std::string RandomId(const char* prefix) {
  static thread_local std::mt19937_64 engine{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, engine(), engine() >> 32);
}

}  // namespace

ApiServer::ApiServer(const ApiOptions& options)
    : options_(options),
      secret_(RandomBytes(32)),
      is_loopback_(IsLoopbackName(options.host)),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {
  http_ = Listen(options.port, options.num_threads, false);
  if (options.health_port >= 0) health_ = Listen(options.health_port, 1, true);
}

std::unique_ptr<HttpServer> ApiServer::Listen(int port, int num_threads, bool health_only) {
  return std::make_unique<HttpServer>(
      options_.host, port, num_threads, options_.limits,
      [this, health_only](const std::shared_ptr<HttpRequest>& request,
                          const ExchangePtr& exchange) {
        if (health_only && !IsHealth(request->path))
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

void ApiServer::Attach(std::shared_ptr<const Backend> backend) {
  {
    const std::lock_guard lock(mutex_);
    backend_ = std::move(backend);
  }
  state_ = ServerState::kReady;
}

std::shared_ptr<const Backend> ApiServer::backend() const {
  const std::lock_guard lock(mutex_);
  return backend_;
}

std::string_view ApiServer::KeyOf(const HttpRequest& request) {
  const std::string_view bearer = request.header("authorization");
  return bearer.starts_with("Bearer ") ? bearer.substr(7) : request.header("x-api-key");
}

bool ApiServer::HasKey(const HttpRequest& request) const {
  const std::string_view given = KeyOf(request);
  bool found = false;
  for (const std::string& key : options_.api_keys) found |= EqualInConstantTime(given, key);
  return found;
}

bool ApiServer::Admitted(const HttpRequest& request, const ExchangePtr& exchange) const {
  const std::string_view host = request.header("host"), origin = request.header("origin");
  if (is_loopback_ && !host.empty() && !IsLoopbackName(HostName(host))) {
    exchange->Respond(Refusal(403, "This Host is not served here.", "host_not_allowed"));
    return false;
  }
  const size_t scheme = origin.find("://");
  if (!origin.empty() && (scheme == std::string_view::npos || origin.substr(scheme + 3) != host)) {
    exchange->Respond(Refusal(403, "Requests of other web pages are refused.", "origin"));
    return false;
  }
  return true;
}

void ApiServer::Handle(const HttpRequest& request, const ExchangePtr& exchange) {
  if (!Admitted(request, exchange)) return;
  const std::string& path = request.path;
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  const bool is_models = path == "/v1/models" || path.starts_with("/v1/models/");
  const bool is_post = path == "/v1/completions" || path == "/v1/chat/completions" ||
                       path == "/tokenize" || path == "/detokenize" || path == "/generate";
  const bool is_open = IsHealth(path);
  if (!is_open && !options_.api_keys.empty() && !HasKey(request))
    return exchange->Respond(Refusal(401, "The API key is missing or wrong.", "invalid_api_key"));
  const bool is_info = path == "/tokenizer_info";
  if (!is_open && !is_models && !is_post && !is_info && path != "/version")
    return exchange->Respond(Refusal(404, "There is no such route.", "not_found"));
  if (is_post ? request.method != "POST" : !is_get) {
    HttpResponse response = Refusal(405, "The route has another method.", "method_not_allowed");
    response.headers.emplace_back("Allow", is_post ? "POST" : "GET, HEAD");
    return exchange->Respond(std::move(response));
  }
  if (is_open) return exchange->Respond(Health(path == "/live"));
  if (is_models) return exchange->Respond(Models(path));
  if (!is_post && !is_info)
    return exchange->Respond(Json(json::object{{"version", options_.version}}));
  if (state_ != ServerState::kReady) return exchange->Respond(NotReady(state_));
  if (is_info) {
    const std::shared_ptr<const Backend> current = backend();
    return exchange->Respond(current->tokenizer == nullptr
                                 ? Refusal(404, "This server has no tokenizer.", "not_found")
                                 : Json(TokenizerInfo(*current)));
  }
  const Result<json::value> body = ParseJson(request.body, "The body");
  if (!body.ok()) return exchange->Respond(BadField(body.error()));
  if (!body.value().is_object())
    return exchange->Respond(BadField(Error{"The body must be an object.", "", "invalid_json"}));
  const json::object& object = body.value().get_object();
  if (path == "/tokenize" || path == "/detokenize")
    return exchange->Respond(TokenizeRoute(path, object));
  if (path == "/v1/chat/completions") return ChatCompletions(object, request, exchange);
  if (path == "/generate") return NativeGenerate(object, request, exchange);
  Completions(object, request, exchange);
}

HttpResponse ApiServer::Health(bool liveness) const {
  const ServerState state = state_;
  const char* name = state == ServerState::kLoading    ? "loading"
                     : state == ServerState::kReady    ? "ok"
                     : state == ServerState::kDraining ? "draining"
                                                       : "failing";
  if (state == ServerState::kReady && !backend()->engine->MakesProgress()) name = "stalled";
  json::object body{{"status", name}};
  if (state == ServerState::kLoading && total_bytes_ > 0) {
    body["loaded_bytes"] = loaded_bytes_.load();
    body["total_bytes"] = total_bytes_.load();
  }
  HttpResponse response = Json(body);
  const bool good = liveness ? state != ServerState::kFailing : std::string_view(name) == "ok";
  if (!good) response.status = 503;
  return response;
}

HttpResponse ApiServer::Models(const std::string& path) const {
  const std::shared_ptr<const Backend> current = backend();
  json::array entries;
  for (const std::string& name : options_.served_names) {
    json::object entry{{"id", name},          {"object", "model"},
                       {"created", created_}, {"owned_by", "lapidary"},
                       {"root", name},        {"parent", nullptr}};
    entry["max_model_len"] = current ? json::value(current->engine->max_model_len()) : nullptr;
    entry["architecture"] = json::object{{"input_modalities", json::array{"text"}}};
    if (path == "/v1/models/" + name) return Json(entry);
    entries.push_back(std::move(entry));
  }
  if (path != "/v1/models") return Refusal(404, "There is no such model.", "model_not_found");
  return Json(json::object{{"object", "list"}, {"data", std::move(entries)}});
}

Result<json::object> ApiServer::Checked(const json::object& body, unsigned endpoint) {
  const std::shared_ptr<const Backend> current = backend();
  Result<CheckedFields> checked = CheckFields(
      body, endpoint, {current->engine->vocab_size(), current->engine->max_model_len()});
  if (!checked.ok()) return checked.error();
  auto num_ignored = static_cast<int64_t>(checked.value().unknown.size());
  if (current->priority_order == PriorityOrder::kNone &&
      checked.value().values.contains("priority"))
    ++num_ignored;
  if (num_ignored > 0 && num_ignored_fields_.fetch_add(num_ignored) == 0)
    spdlog::warn(
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
  form.caller_salt = HmacSha256(secret_, KeyOf(request));
  form.id = RandomId(prefix);
  form.created = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  const json::value* model = fields.if_contains("model");
  form.model = model ? std::string(model->get_string()) : options_.served_names[0];
  return form;
}

// Counts the reply as live until the last owner lets go of it.
template <typename Reply>
std::shared_ptr<Reply> ApiServer::Live(Reply* reply) {
  ++*num_live_;
  return std::shared_ptr<Reply>(reply, [live = num_live_](Reply* done) {
    delete done;
    --*live;
  });
}

void ApiServer::Completions(const json::object& body, const HttpRequest& http,
                            const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(body, kCompletions);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  ReplyForm form = NewForm(fields.value(), http, "cmpl-");
  const std::shared_ptr<const Backend> current = backend();
  Result<std::vector<Request>> requests = MakeRequests(fields.value(), *current, form);
  if (!requests.ok()) return exchange->Respond(BadField(requests.error()));
  Live(new Completion(current, exchange, std::move(form)))->Start(std::move(requests).value());
}

void ApiServer::ChatCompletions(const json::object& body, const HttpRequest& http,
                                const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(body, kChat);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  ReplyForm form = NewForm(fields.value(), http, "chatcmpl-");
  ChatForm chat;
  const std::shared_ptr<const Backend> current = backend();
  Result<Request> request = MakeChatRequest(fields.value(), *current, form, chat);
  if (!request.ok()) return exchange->Respond(BadField(request.error()));
  Live(new ChatCompletion(current, exchange, std::move(form), std::move(chat)))
      ->Start(std::move(request).value());
}

void ApiServer::NativeGenerate(const json::object& body, const HttpRequest& http,
                               const ExchangePtr& exchange) {
  const Result<json::object> fields = Checked(body, kNative);
  if (!fields.ok()) return exchange->Respond(BadField(fields.error()));
  GenerateForm form;
  form.reply = NewForm(fields.value(), http, "");
  const std::shared_ptr<const Backend> current = backend();
  Result<std::vector<Request>> requests = MakeNativeRequests(fields.value(), *current, form);
  if (!requests.ok()) return exchange->Respond(BadField(requests.error()));
  Live(new Generate(current, exchange, std::move(form)))->Start(std::move(requests).value());
}

HttpResponse ApiServer::TokenizeRoute(const std::string& path, const json::object& body) {
  const bool encodes = path == "/tokenize";
  const Result<json::object> fields = Checked(body, encodes ? kTokenize : kDetokenize);
  if (!fields.ok()) return BadField(fields.error());
  const Result<json::object> reply =
      encodes ? Tokenize(fields.value(), *backend()) : Detokenize(fields.value(), *backend());
  return reply.ok() ? Json(reply.value()) : BadField(reply.error());
}

}  // namespace lapidary
