// simulation [--steps N] [--seed S] [--length L] [--threads T] [--twice K] [--progress]
//
// Runs simulations of L steps with seeds S, S + 1, ... until N steps are done; the first K of them
// twice, with the same trace. Ends with the GOAL lines: name, measured, limit; exits 1 when one is
// missed. A broken promise ends it at once with the seed's replay command.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
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
  fmt::print("GOAL G1 1 0 FAIL\n");
  std::fflush(stdout);
}

struct Flags {
  int64_t steps = 5'000'000, length = 2'000;
  uint64_t seed = 1;
  int threads = 0;
  int64_t twice = 0;
  bool progress = false;
};

struct Sums {
  SimulationResult all;
  PlanMeasures overcommit;  // of that scenario alone
  int64_t repeated = 0;
};

class Totals {
 public:
  void Add(const SimulationResult& r, bool repeated) {
    const std::lock_guard lock(mutex_);
    SimulationResult& all = sums_.all;
    all.steps += r.steps;
    all.finished += r.finished;
    all.cancelled += r.cancelled;
    all.expired += r.expired;
    all.refused += r.refused;
    all.retractions += r.retractions;
    all.faults += r.faults;
    all.late_results += r.late_results;
    all.cached_tokens += r.cached_tokens;
    all.largest_share = std::max(all.largest_share, r.largest_share);
    all.plans.most_overtakes = std::max(all.plans.most_overtakes, r.plans.most_overtakes);
    all.plans.most_retractions = std::max(all.plans.most_retractions, r.plans.most_retractions);
    all.plans.recomputed_inside += r.has_faults ? 0 : r.plans.recomputed_inside;
    if (r.is_overcommit) {
      sums_.overcommit.planned_rows += r.plans.planned_rows;
      sums_.overcommit.recomputed_rows += r.plans.recomputed_rows;
    }
    sums_.repeated += repeated;
  }
  Sums Get() {
    const std::lock_guard lock(mutex_);
    return sums_;
  }

 private:
  std::mutex mutex_;
  Sums sums_;
};

// The seeds, shared among threads.
void RunSeeds(const Flags& flags, int64_t num_seeds, Totals& totals) {
  const auto hardware = static_cast<int>(std::thread::hardware_concurrency());
  const int num_threads = flags.threads > 0 ? flags.threads : std::max(1, hardware);
  std::atomic<int64_t> next{0};
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(num_threads));
  for (int t = 0; t < num_threads; ++t)
    threads.emplace_back([&] {
      for (int64_t i = next++; i < num_seeds; i = next++) {
        current_seed = flags.seed + static_cast<uint64_t>(i);
        current_length = flags.length;
        const SimulationResult result = Simulator(current_seed).Run(flags.length);
        const bool repeats = i < flags.twice;
        if (repeats) {
          const SimulationResult again = Simulator(current_seed).Run(flags.length);
          CHECK(again.plans.trace == result.plans.trace, "seed {} is not repeatable", current_seed);
        }
        totals.Add(result, repeats);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

// A line every ten seconds until it is destroyed.
class Progress {
 public:
  Progress(Totals& totals, int64_t steps)
      : thread_([this, &totals, steps] {
          const auto start = std::chrono::steady_clock::now();
          std::unique_lock lock(mutex_);
          while (!changed_.wait_for(lock, std::chrono::seconds(10), [this] { return done_; })) {
            const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
            const auto have = static_cast<double>(totals.Get().all.steps);
            const double rate = have / passed.count();
            const double left = std::max(0.0, static_cast<double>(steps) - have);
            fmt::print(stderr, "{:.1f} of {:.1f} M steps, {:.0f} k/s, {:.0f} s left\n", have / 1e6,
                       static_cast<double>(steps) / 1e6, rate / 1e3, left / std::max(rate, 1.0));
          }
        }) {}
  ~Progress() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

bool Goal(const char* name, double value, double limit, bool passes) {
  fmt::print("GOAL {} {:.6g} {:.6g} {}\n", name, value, limit, passes ? "PASS" : "FAIL");
  return passes;
}

bool AtMost(const char* name, double value, double limit) {
  return Goal(name, value, limit, value <= limit);
}

bool AtLeast(const char* name, int64_t value, int64_t limit) {
  fmt::print("GOAL {} {} {} {}\n", name, value, limit, value >= limit ? "PASS" : "FAIL");
  return value >= limit;
}

bool Report(const Flags& flags, int64_t num_seeds, const Sums& sums) {
  const SimulationResult& s = sums.all;
  fmt::print(
      "{} steps of seeds {} to {}: {} sequences finished, {} cancelled, {} expired, {} refused, "
      "{} retractions, {} faults, {} late results, {} cached prompt tokens\n",
      s.steps, flags.seed, flags.seed + static_cast<uint64_t>(num_seeds) - 1, s.finished,
      s.cancelled, s.expired, s.refused, s.retractions, s.faults, s.late_results, s.cached_tokens);
  const PlanMeasures& over = sums.overcommit;
  const double recomputed = 100.0 * static_cast<double>(over.recomputed_rows) /
                            static_cast<double>(std::max<int64_t>(1, over.planned_rows));
  bool passes = AtLeast("G1.steps", s.steps, flags.steps);
  passes &= AtLeast("G1.repeated_seeds", sums.repeated, std::min(flags.twice, num_seeds));
  passes &= AtMost("G2.share_of_step_bound", s.largest_share, 1);
  passes &= AtMost("G2.overtakes", s.plans.most_overtakes, kMaxOvertakes);
  passes &= AtMost("G2.retractions", s.plans.most_retractions, kMaxRetractions);
  passes &= AtMost("G2.recomputed_inside", static_cast<double>(s.plans.recomputed_inside), 0);
  passes &= AtMost("G2.recomputed_overcommit_percent", recomputed, 10);
  // A violation or a stall ends the process at its CHECK.
  AtMost("G1", 0, 0);
  AtMost("G2", passes ? 0 : 1, 0);
  return passes;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("the scheduler under random load and faults");
  app.add_option("--steps", flags.steps, "in all")->check(CLI::PositiveNumber);
  app.add_option("--length", flags.length, "steps of one seed")->check(CLI::PositiveNumber);
  app.add_option("--seed", flags.seed, "the first one");
  app.add_option("--threads", flags.threads, "0: all cores");
  app.add_option("--twice", flags.twice, "seeds to run twice and compare");
  app.add_flag("--progress", flags.progress, "a line every ten seconds");
  CLI11_PARSE(app, argc, argv);
  SetCheckFailureHandler(SayHowToReplay);
  const int64_t num_seeds = (flags.steps + flags.length - 1) / flags.length;
  Totals totals;
  {
    std::unique_ptr<Progress> progress;
    if (flags.progress) progress = std::make_unique<Progress>(totals, flags.steps);
    RunSeeds(flags, num_seeds, totals);
  }
  return Report(flags, num_seeds, totals.Get()) ? 0 : 1;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
