// lapidary serve: the OpenAI-compatible server.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "app/command.h"
#include "app/model_source.h"
#include "base/log.h"
#include "server/api_server.h"

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;

// How long the engine may be silent while it has work: a step of the CPU backend on a large model
// takes seconds.
constexpr int64_t kStallMs = 30'000;

struct ServeFlags {
  std::string model, positional_model, draft_model, load_format = "auto", log_level = "info";
  ApiOptions api;
  EngineOptions engine;
  int drain_timeout_s = 25;
};

// The engine as the server sees it.
class EngineAdapter : public TokenEngine {
 public:
  EngineAdapter(std::unique_ptr<Checkpoint> target, const EngineOptions& options)
      : engine_(std::move(target), nullptr, options) {}
  Status Submit(Request request, TokenSink sink) override {
    return engine_.Submit(std::move(request), std::move(sink));
  }
  void Cancel(uint64_t request_id) override { engine_.Cancel(request_id); }
  void CancelChoice(uint64_t request_id, int choice) override {
    engine_.CancelChoice(request_id, choice);
  }
  int vocab_size() const override { return engine_.config().vocab_size; }
  int max_model_len() const override { return engine_.max_model_len(); }
  bool MakesProgress() const override {
    const EngineStats stats = engine_.stats();
    const int64_t now =
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch())
            .count();
    return stats.num_running + stats.num_queued == 0 || now - stats.last_progress_ms < kStallMs;
  }

 private:
  Engine engine_;
};

ApiServer* failing_server = nullptr;

// A failed CHECK: probes see it before the process ends.
void FailStop(const std::string&) {
  if (failing_server != nullptr) failing_server->SetState(ServerState::kFailing);
  std::this_thread::sleep_for(std::chrono::seconds(1));
}

std::shared_ptr<const Backend> LoadBackend(const ServeFlags& flags,
                                           const std::filesystem::path& dir) {
  auto target = flags.load_format == "dummy"
                    ? OrThrow(MakeDummyCheckpoint(dir, AvailableMemoryBytes()))
                    : OrThrow(LoadCheckpoint(dir, {}));
  const ModelConfig config = target->config;
  if (config.is_drafter)
    throw StartupError(
        fmt::format("{} is an assistant; give the model it belongs to", dir.string()));
  const GenerationConfig generation = OrThrow(ReadGenerationConfig(dir, config.vocab_size));
  auto tokenizer = std::make_shared<const Tokenizer>(OrThrow(Tokenizer::Load(dir)));
  const TemplateChoice chat = ChooseTemplate(dir, config);
  const EngineOptions options = WithModelIds(flags.engine, config, generation, tokenizer.get());
  auto engine = std::make_shared<EngineAdapter>(std::move(target), options);
  fmt::print(stderr, "model   {}   {} layers, window {}, context {}\n", dir.filename().string(),
             config.num_layers(), config.window, engine->max_model_len());
  fmt::print(stderr, "chat    {}\n", chat.reason);
  auto backend = std::make_shared<Backend>();
  backend->engine = engine;
  backend->tokenizer = tokenizer;
  backend->defaults = {generation.temperature, generation.top_k, generation.top_p};
  backend->chat_template = chat.revision;
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

  const std::filesystem::path dir =
      FindModel(flags.model.empty() ? flags.positional_model : flags.model);
  if (flags.api.served_names.empty())
    flags.api.served_names = {
        flags.model.empty() && flags.positional_model.empty() ? "pebble" : dir.filename().string()};
  flags.api.version = LAPIDARY_VERSION;
  ApiServer server(flags.api);
  failing_server = &server;
  SetCheckFailureHandler(FailStop);
  fmt::print(stderr, "lapidary {}   http://{}:{} (loading)\n", LAPIDARY_VERSION, flags.api.host,
             server.port());
  server.Attach(LoadBackend(flags, dir));
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
  app.add_option("--model,--model-path", f->model, "the same as a flag");
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
  app.add_option("--load-format", f->load_format, "auto, or dummy: random weights")
      ->check(CLI::IsMember({"auto", "dummy"}));
  app.add_option("--drain-timeout,--shutdown-timeout", f->drain_timeout_s,
                 "seconds to finish after SIGTERM")
      ->capture_default_str();
  return [f] { return RunServe(*f); };
}

}  // namespace

const Command kServeCommand = {"serve", "the OpenAI-compatible server",
                               "lapidary serve --port 8000", SetUpServe};

}  // namespace lapidary
