// lapidary serve: the OpenAI-compatible server.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "app/command.h"
#include "app/model/engine_adapter.h"
#include "app/model/find_model.h"
#include "app/model/load_model.h"
#include "base/log.h"
#include "server/api_server.h"

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;

struct ServeFlags {
  ModelFlags model;
  std::string positional_model;
  ApiOptions api;
  EngineOptions engine;
  int drain_timeout_s = 25;
};

ApiServer* failing_server = nullptr;

// A failed CHECK: probes see it before the process ends.
void FailStop(const std::string&) {
  if (failing_server != nullptr) failing_server->SetState(ServerState::kFailing);
  std::this_thread::sleep_for(std::chrono::seconds(1));
}

// What a client may call the model: the folder's name and what --model says.
std::vector<std::string> ServedNames(const ModelFlags& flags) {
  if (flags.model.empty()) return {"pebble"};
  std::error_code code;
  if (!std::filesystem::is_directory(flags.model, code)) return {flags.model};
  std::filesystem::path dir = std::filesystem::absolute(flags.model, code).lexically_normal();
  if (!dir.has_filename()) dir = dir.parent_path();
  if (dir.filename() == flags.model) return {flags.model};
  return {dir.filename().string(), flags.model};
}

std::shared_ptr<const Backend> LoadBackend(const ServeFlags& flags) {
  LoadedModel model = LoadModel(flags.model);
  NeedTokenizer(model);
  const ModelConfig config = model.target->config;
  auto backend = MakeBackend(model, WithModel(flags.engine, flags.model, model));
  fmt::print(stderr, "model   {}   {} layers, window {}, context {}\n",
             model.dir.filename().string(), config.num_layers(), config.window,
             backend->engine->max_model_len());
  fmt::print(stderr, "draft   {}   {} drafts a burst  [--speculative-num-steps]\n",
             model.drafter_reason, flags.model.num_drafts);
  fmt::print(stderr, "chat    {}\n", model.chat.reason);
  return backend;
}

// SIGTERM or SIGINT: readiness ends at once, running requests finish; a second signal, or the
// timeout, ends sooner.
void Drain(ApiServer& server, const sigset_t& signals, int timeout_s) {
  server.SetState(ServerState::kDraining);
  const auto end = Clock::now() + std::chrono::seconds(timeout_s);
  while (server.num_live() > 0 && Clock::now() < end) {
    const timespec pause{0, 50'000'000};
    if (sigtimedwait(&signals, nullptr, &pause) > 0) break;
  }
}

int RunServe(ServeFlags flags) {
  const auto start = Clock::now();
  // Blocked before any thread starts, so that only the wait below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  if (flags.model.model.empty()) flags.model.model = flags.positional_model;
  if (flags.api.served_names.empty()) flags.api.served_names = ServedNames(flags.model);
  flags.api.version = LAPIDARY_VERSION;
  ApiServer server(flags.api);
  failing_server = &server;
  SetCheckFailureHandler(FailStop);
  fmt::print(stderr, "lapidary {}   http://{}:{} (loading)\n", LAPIDARY_VERSION, flags.api.host,
             server.port());
  server.Attach(LoadBackend(flags));
  fmt::print(stderr, "ready   in {:.2f} s\n",
             std::chrono::duration<double>(Clock::now() - start).count());

  int signal_number = 0;
  sigwait(&signals, &signal_number);
  fmt::print(stderr, "stop    finishing {} requests\n", server.num_live());
  Drain(server, signals, flags.drain_timeout_s);
  failing_server = nullptr;
  return 0;
}

std::function<int()> SetUpServe(CLI::App& app) {
  auto f = std::make_shared<ServeFlags>();
  f->api.served_names.clear();
  app.add_option("MODEL", f->positional_model, "checkpoint folder (default: the shipped pebble)");
  AddModelFlags(app, f->model);
  AddLoadFlags(app, f->model);
  app.add_option("--host", f->api.host, "address")->capture_default_str();
  app.add_option("--port", f->api.port, "0: any free port")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--served-model-name", f->api.served_names, "names in requests and replies");
  app.add_option("--api-key", f->api.api_keys, "key clients must send; repeatable");
  app.add_option("--max-model-len,--context-length", f->engine.max_model_len,
                 "context (0: the model's, or what fits)");
  app.add_option("--max-running-requests,--max-num-seqs", f->engine.max_running_requests,
                 "sequences in a step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-queued-requests", f->engine.max_queued_requests, "beyond it: 429")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--chunked-prefill-size", f->engine.chunk_tokens, "prompt tokens a step")
      ->check(CLI::Range(64, 65536))
      ->capture_default_str();
  app.add_flag("--kv-sharing-fast-prefill,!--no-kv-sharing-fast-prefill", f->engine.fast_prefill,
               "YOCO prefill");
  app.add_option("--num-threads", f->engine.num_threads, "0: all cores")
      ->check(CLI::Range(0, 1024));
  app.add_option("--drain-timeout,--shutdown-timeout", f->drain_timeout_s,
                 "seconds to finish after SIGTERM")
      ->capture_default_str();
  return [f] { return RunServe(*f); };
}

}  // namespace

const Command kServeCommand = {"serve", "the OpenAI-compatible server",
                               "lapidary serve --port 8000", SetUpServe};

}  // namespace lapidary
