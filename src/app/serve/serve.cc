// lapidary serve: the OpenAI-compatible server.
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "app/command.h"
#include "app/model/engine_adapter.h"
#include "app/plan/plan_model.h"
#include "app/serve/fail_stop.h"
#include "app/serve/serve_flags.h"
#include "app/version.h"
#include "base/log.h"

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;

// Ctrl-C or SIGTERM while the model loads ends the process at once: nothing runs yet.
class LoadingGuard {
 public:
  explicit LoadingGuard(const sigset_t& signals)
      : thread_([this, signals] {
          const timespec pause{0, 50'000'000};
          while (!loaded_)
            if (sigtimedwait(&signals, nullptr, &pause) > 0) {
              fmt::print(stderr, "stop    while loading\n");
              _exit(0);
            }
        }) {}
  ~LoadingGuard() {
    loaded_ = true;
    thread_.join();
  }
  LoadingGuard(const LoadingGuard&) = delete;
  LoadingGuard& operator=(const LoadingGuard&) = delete;

 private:
  std::atomic<bool> loaded_{false};
  std::thread thread_;
};

void PrintPlan(const ServeFlags& flags, const MemoryPlan& plan, const ModelConfig& config) {
  int full = 0;
  for (const LayerConfig& layer : config.layers) full += layer.kind == LayerKind::kFull ? 1 : 0;
  fmt::print(stderr,
             "model   {}   {} layers: {} sliding {}, {} full   context {}  [--max-model-len]\n",
             flags.api.served_names[0], config.num_layers(), config.num_layers() - full,
             config.window, full, plan.context);
  const auto kv = static_cast<uint64_t>(plan.num_slabs * plan.layout.slab_bytes);
  fmt::print(stderr,
             "plan    GiB of {} available: weights {}{}, workspace {}, KV {} of at most {}: {}\n",
             GiB(plan.device_bytes), GiB(plan.weight_bytes), plan.is_cpu ? " (mapped)" : "",
             GiB(plan.workspace_bytes), GiB(kv), GiB(plan.kv_bytes), plan.kv_reason);
  fmt::print(stderr, "        K and V of full layers {}\n", plan.CacheLine());
  std::string fits;
  for (const int tokens : plan.Lengths())
    fits +=
        fmt::format("{}{} at {}k", fits.empty() ? "" : ", ", plan.Requests(tokens), tokens / 1024);
  fmt::print(stderr,
             "        requests that fit: {}   at most {} run  [--max-num-seqs]   chunk {}  "
             "[--chunked-prefill-size]   page {}\n",
             fits, plan.options.max_running_requests, plan.options.chunk_tokens, kPageTokens);
}

void PrintReplyPlan(const ServeFlags& flags, const SamplingDefaults& defaults) {
  const RenderOptions chat = ReadChatKwargs(flags.chat_kwargs);
  fmt::print(stderr,
             "        sampling defaults {} / {} / {}  [--generation-config]   seed {}  [--seed]   "
             "thinking {}  [--default-chat-template-kwargs]\n",
             defaults.temperature, defaults.top_k, defaults.top_p,
             flags.seed ? fmt::format("from {}", *flags.seed) : "random a request",
             chat.enable_thinking ? "on" : "off");
}

SamplingDefaults DefaultsOf(const ServeFlags& flags, const GenerationConfig& generation) {
  if (flags.generation_config == "vllm" || flags.sampling_defaults == "openai")
    return {1.0f, 0, 1.0f};
  return {generation.temperature, generation.top_k, generation.top_p};
}

void PrintDrafts(const ModelFlags& flags, const LoadedModel& model) {
  const int drafts = flags.num_drafts();
  if (drafts == 0 || model.drafter == nullptr)
    return fmt::print(stderr, "draft   off: {}\n",
                      drafts == 0 ? "0 drafts a burst  [--speculative-num-steps]"
                                  : model.drafter_reason + "  [--draft-model]");
  const char* const position = !flags.draft_position                            ? "measured"
                               : flags.draft_position == DraftPosition::kNewest ? "newest"
                                                                                : "last-kv";
  fmt::print(
      stderr,
      "draft   {}   drafts a burst: {}  [--speculative-num-steps]   position {}  "
      "[--draft-position]\n",
      model.drafter_reason,
      drafts < 0 ? fmt::format("adaptive, up to {}", kDefaultDrafts) : std::to_string(drafts),
      position);
}

json::object TellPlan(const MemoryPlan& plan) {
  return {{"context", plan.context},
          {"weight_bytes", plan.weight_bytes},
          {"workspace_bytes", plan.workspace_bytes},
          {"num_slabs", plan.num_slabs},
          {"slab_bytes", plan.layout.slab_bytes},
          {"kv_bound", plan.kv_reason},
          {"kv_folded", plan.fold.folds},
          {"kv_fold_reason", plan.fold.reason},
          {"chunk_tokens", plan.options.chunk_tokens},
          {"max_running_requests", plan.options.max_running_requests},
          {"page_tokens", kPageTokens}};
}

void AttachModel(const ServeFlags& flags, const MemoryPlan& plan, const std::shared_ptr<Ops>& gpu,
                 ApiServer& server) {
  LoadOptions load;
  load.ops = gpu;
  load.progress = [&server](uint64_t done, uint64_t total) { server.SetProgress(done, total); };
  LoadedModel model = LoadModel(flags.model, load);
  if (flags.skip_tokenizer)
    model.tokenizer = nullptr;
  else
    NeedTokenizer(model);
  PrintDrafts(flags.model, model);
  fmt::print(stderr, "chat    {}\n",
             flags.skip_tokenizer ? "off: --skip-tokenizer-init" : model.chat.reason);
  std::shared_ptr<TokenEngine> engine =
      StartEngine(model, WithModel(plan.options, flags.model, model));
  Backend backend = BackendOf(model);
  backend.defaults = DefaultsOf(flags, model.generation);
  backend.chat_defaults = ReadChatKwargs(flags.chat_kwargs);
  backend.parses_reasoning = flags.reasoning_parser != "none";
  backend.parses_tools = flags.tool_parser != "none";
  backend.started_with = {{"flags", flags.told}, {"plan", TellPlan(plan)}};
  backend.priority_order = flags.order;
  if (flags.seed) backend.seeds = std::make_shared<SeedSequence>(*flags.seed);
  server.Attach(std::move(engine), std::move(backend));
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

// The model's own numbers before anything is read or opened: a folder that cannot be served says so
// at once.
MemoryPlan PlanServe(const ServeFlags& flags, const Ops* gpu) {
  const PlannedModel planned =
      PlanModel(flags.model, flags.memory, flags.engine, MemoryBudget::Of(gpu));
  const MemoryPlan& plan = planned.memory;
  PrintPlan(flags, plan, planned.config);
  NeedContext(plan, flags.engine.max_model_len);
  fmt::print(stderr, "{}\n", EngineLine(flags.run, plan.options));
  PrintReplyPlan(
      flags,
      DefaultsOf(flags, OrThrow(ReadGenerationConfig(planned.dir, planned.config.vocab_size))));
  return plan;
}

int RunServe(ServeFlags flags) {
  const auto start = Clock::now();
  ResolveServeFlags(flags);
  flags.api.version = LAPIDARY_VERSION;
  if (flags.dry_run) {
    PlanServe(flags, OpenGpuOps(flags.model.backend).get());
    return 0;
  }
  // Blocked before any thread starts, so that only the waits below see them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  SetLogLevel(LogLevel(flags.log_level).value_or("info"));

  const std::shared_ptr<Ops> gpu = OpenGpuOps(flags.model.backend);
  ApiServer server(flags.api);
  const FailStop fail_stop(server);
  fmt::print(stderr, "lapidary {}   {}   http://{}:{} (loading)  [--backend]\n", LAPIDARY_VERSION,
             gpu == nullptr ? fmt::format("CPU, {}", InstructionSet()) : gpu->device().name(),
             flags.api.host, server.port());
  {
    const LoadingGuard guard(signals);
    const MemoryPlan plan = PlanServe(flags, gpu.get());
    AttachModel(flags, plan, gpu, server);
  }
  fmt::print(stderr, "ready   in {:.2f} s\n",
             std::chrono::duration<double>(Clock::now() - start).count());

  int signal_number = 0;
  sigwait(&signals, &signal_number);
  fmt::print(stderr, "stop    finishing {} requests\n", server.num_live());
  Drain(server, signals, flags.drain_timeout_s);
  return 0;
}

std::function<int()> SetUpServe(CLI::App& app) {
  auto f = std::make_shared<ServeFlags>();
  AddServeFlags(app, *f);
  return [f, &app] {
    f->told = TellFlags(app);
    return RunServe(*f);
  };
}

}  // namespace

const Command kServeCommand = {"serve", "the OpenAI-compatible server",
                               "lapidary serve --port 8000", SetUpServe};

}  // namespace lapidary
