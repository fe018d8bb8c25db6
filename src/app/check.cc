// lapidary check: this machine and one checkpoint, and what would be refused.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <CLI/App.hpp>
#include <boost/json/value_from.hpp>

#include <algorithm>
#include <iostream>
#include <thread>

#include "app/command.h"
#include "app/model/find_model.h"
#include "app/model/load_model.h"
#include "app/proc.h"
#include "io/json.h"
#include "model/tensor_spec.h"
#include "ops/cpu/linear.h"
#include "server/http/http_server.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

struct CheckFlags {
  ModelFlags model;
  std::string positional_model;
  bool read_weights = false, json_output = false;
};

struct Machine {
  std::string cpu = "unknown", instructions = "plain", gpu_driver;
  unsigned num_cores = 0;
  uint64_t memory_bytes = 0, available_bytes = 0;
  rlim_t max_open_files = 0;
  std::vector<std::string> gpus;
};

// What was found of a checkpoint, as far as it could be read; `refused` says what stops it.
struct Report {
  std::string dir, config, tensors, chat_template, tokenizer, drafter;
  uint64_t weight_bytes = 0;
  std::vector<std::string> refused, notes;
};

uint64_t MemInfoBytes(std::string_view key) {
  const std::string kib = ProcValue("/proc/meminfo", key);
  return kib.empty() ? 0 : std::strtoull(kib.c_str(), nullptr, 10) * 1024;
}

Machine LookAtMachine() {
  Machine machine;
  if (std::string name = ProcValue("/proc/cpuinfo", "model name"); !name.empty())
    machine.cpu = std::move(name);
  for (int i = 0; i < cpu::kNumLinearVariants; ++i)
    if (cpu::LinearVariants()[i].supported) machine.instructions = cpu::LinearVariants()[i].name;
  machine.num_cores = std::thread::hardware_concurrency();
  machine.memory_bytes = MemInfoBytes("MemTotal:");
  machine.available_bytes = MemInfoBytes("MemAvailable:");
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) machine.max_open_files = limit.rlim_cur;
  machine.gpu_driver = ProcValue("/proc/driver/nvidia/version", "NVRM version");
  machine.gpus = GpuNames();
  return machine;
}

std::string InGiB(uint64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (uint64_t{1} << 30));
}

void LookAtTensors(const ModelConfig& config, const CheckFlags& flags, Report& report) {
  LoadOptions options;
  options.touch_all_bytes = flags.read_weights;
  const auto loaded = LoadCheckpoint(report.dir, options);
  if (!loaded.ok()) {
    report.refused.push_back(loaded.error().message);
    return;
  }
  size_t used = 0, towers = 0;
  for (const TensorSpec& spec : TensorSpecs(config)) {
    if (spec.role == TensorRole::kUsed) ++used;
    if (spec.role == TensorRole::kTower) ++towers;
  }
  report.tensors = fmt::format(
      "{} of the text model, {} of the towers (not loaded): all there with name, shape "
      "and type, none left over{}",
      used, towers, flags.read_weights ? ", all numbers finite" : "");
}

void LookAtTexts(const ModelConfig& config, Report& report) {
  if (const auto generation = ReadGenerationConfig(report.dir, config.vocab_size); !generation.ok())
    report.refused.push_back(generation.error().message);
  if (config.is_drafter) return;
  report.chat_template = ChooseTemplate(report.dir, config).reason;
  std::error_code code;
  if (!fs::exists(fs::path(report.dir) / "tokenizer.json", code)) {
    report.tokenizer = "none";
    report.refused.push_back(fmt::format(
        "{} has no tokenizer.json: only token ids can be served (--skip-tokenizer-init)",
        report.dir));
    return;
  }
  const auto tokenizer = Tokenizer::Load(report.dir);
  if (!tokenizer.ok()) {
    report.refused.push_back(tokenizer.error().message);
    return;
  }
  report.tokenizer = fmt::format("{} entries", tokenizer.value().vocab_size());
  if (tokenizer.value().vocab_size() > config.vocab_size)
    report.refused.push_back(
        fmt::format("tokenizer.json has {} entries, config.json's vocabulary only {}",
                    tokenizer.value().vocab_size(), config.vocab_size));
}

void LookAtDrafter(const CheckFlags& flags, const ModelConfig& config, Report& report) {
  const fs::path hub = flags.model.HubDir();
  const DrafterChoice choice =
      flags.model.draft_model.empty()
          ? FindDrafter(report.dir, config, hub)
          : DrafterChoice{FindModel(flags.model.draft_model, hub), "as asked"};
  report.drafter = choice.reason;
  if (!choice.dir) return;
  report.drafter = fmt::format("{}, {}", choice.dir->string(), choice.reason);
  LoadOptions options;
  options.touch_all_bytes = flags.read_weights;
  const auto drafter = LoadCheckpoint(*choice.dir, options);
  const Status fits =
      drafter.ok() ? CheckDrafterFits(config, drafter.value()->config) : Status(drafter.error());
  if (!fits.ok())
    report.refused.push_back(fits.error().message);
  else
    report.drafter += fmt::format(": fits, {}", InGiB(drafter.value()->weight_bytes));
}

Report LookAtModel(const CheckFlags& flags, const Machine& machine) {
  Report report;
  try {
    report.dir = FindModel(flags.model.model, flags.model.HubDir()).string();
    const auto config = ReadModelConfig(report.dir);
    if (!config.ok()) throw StartupError(config.error().message);
    const ModelConfig& model = config.value();
    report.config = fmt::format("{}: {} layers, hidden {}, window {}, context {}, vocabulary {}",
                                model.family, model.num_layers(), model.hidden, model.window,
                                model.max_position, model.vocab_size);
    report.weight_bytes = WeightBytes(model);
    LookAtTensors(model, flags, report);
    LookAtTexts(model, report);
    if (model.is_drafter)
      report.refused.push_back(fmt::format(
          "{} is an assistant: it drafts for a model and is not served itself", report.dir));
    else
      LookAtDrafter(flags, model, report);
    if (report.weight_bytes > machine.available_bytes)
      report.notes.push_back(fmt::format(
          "the weights need {}, {} are available: they would be read from the disk again and again",
          InGiB(report.weight_bytes), InGiB(machine.available_bytes)));
  } catch (const StartupError& error) {
    report.refused.push_back(error.what());
  }
  const auto connections = static_cast<rlim_t>(HttpLimits().connections);
  if (machine.max_open_files < connections + 64)
    report.notes.push_back(fmt::format(
        "at most {} open files: the server can hold fewer than its {} connections (ulimit -n)",
        machine.max_open_files, connections));
  return report;
}

void PrintLines(const Machine& machine, const Report& report) {
  const auto line = [](std::string_view name, std::string_view text) {
    if (!text.empty()) fmt::print("{:<10} {}\n", name, text);
  };
  line("cpu",
       fmt::format("{}, {} threads, {}", machine.cpu, machine.num_cores, machine.instructions));
  line("memory", fmt::format("{}, {} available", InGiB(machine.memory_bytes),
                             InGiB(machine.available_bytes)));
  if (machine.gpus.empty())
    line("gpu", machine.gpu_driver.empty() ? "none, no NVIDIA driver: the CPU serves"
                                           : "none, driver " + machine.gpu_driver);
  else
    line("gpu", fmt::format("{}, driver {}; this build serves on the CPU",
                            fmt::join(machine.gpus, ", "), machine.gpu_driver));
  line("files", fmt::format("{} open files allowed", machine.max_open_files));
  line("model", report.dir);
  line("config", report.config);
  line("tensors", report.tensors);
  if (report.weight_bytes > 0) line("weights", InGiB(report.weight_bytes));
  line("template", report.chat_template);
  line("tokenizer", report.tokenizer);
  line("drafter", report.drafter);
  for (const std::string& note : report.notes) line("note", note);
  for (const std::string& sentence : report.refused) line("REFUSED", sentence);
  if (report.refused.empty()) line("ok", "nothing here would be refused");
}

void PrintJson(const Machine& machine, const Report& report) {
  json::object out;
  out["ok"] = report.refused.empty();
  out["machine"] = {{"cpu", machine.cpu},
                    {"num_cores", machine.num_cores},
                    {"instructions", machine.instructions},
                    {"memory_bytes", machine.memory_bytes},
                    {"available_bytes", machine.available_bytes},
                    {"max_open_files", machine.max_open_files},
                    {"gpus", json::value_from(machine.gpus)},
                    {"gpu_driver", machine.gpu_driver}};
  out["model"] = {{"dir", report.dir},
                  {"config", report.config},
                  {"tensors", report.tensors},
                  {"weight_bytes", report.weight_bytes},
                  {"template", report.chat_template},
                  {"tokenizer", report.tokenizer},
                  {"drafter", report.drafter}};
  out["notes"] = json::value_from(report.notes);
  out["refused"] = json::value_from(report.refused);
  std::cout << json::serialize(out) << "\n";
}

int RunCheck(const CheckFlags& flags) {
  const Machine machine = LookAtMachine();
  const Report report = LookAtModel(flags, machine);
  if (flags.json_output)
    PrintJson(machine, report);
  else
    PrintLines(machine, report);
  return report.refused.empty() ? 0 : kExitFailure;
}

std::function<int()> SetUpCheck(CLI::App& app) {
  auto f = std::make_shared<CheckFlags>();
  app.add_option("MODEL", f->positional_model, "as --model");
  AddModelFlags(app, f->model);
  app.add_flag("--read-weights", f->read_weights, "read every number too, not only the headers");
  app.add_flag("--json", f->json_output, "print one JSON object and nothing else");
  return [f] {
    if (f->model.model.empty()) f->model.model = f->positional_model;
    return RunCheck(*f);
  };
}

}  // namespace

const Command kCheckCommand = {"check", "this machine and a checkpoint, and what would be refused",
                               "lapidary check google/gemma-4-E4B-it", SetUpCheck};

}  // namespace lapidary
