// Loading and encoding speed on one core. The text: the licence texts that every Debian carries.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "text/tokenizer.h"

namespace lapidary {
namespace {

std::string tokenizer_dir = "tests/data/tokenizer";  // from the root of the repository

std::string LicenceTexts() {
  std::vector<std::filesystem::path> paths;
  std::string text;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/common-licenses"))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

void BM_Load(benchmark::State& state) {
  for ([[maybe_unused]] auto _ : state) {
    const auto tokenizer = Tokenizer::Load(tokenizer_dir);
    CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
    benchmark::DoNotOptimize(&tokenizer);
  }
}
BENCHMARK(BM_Load)->Unit(benchmark::kMillisecond);

void BM_Encode(benchmark::State& state) {
  const auto tokenizer = Tokenizer::Load(tokenizer_dir);
  CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
  const std::string text = LicenceTexts();
  size_t ids = 0;
  for ([[maybe_unused]] auto _ : state) ids = tokenizer.value().Encode(text).size();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
  state.counters["ids"] = static_cast<double>(ids);
}
BENCHMARK(BM_Encode)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lapidary

// --tokenizer_dir=DIR names another folder with tokenizer.json.
int main(int argc, char** argv) {
  constexpr const char* kFlag = "--tokenizer_dir=";
  benchmark::Initialize(&argc, argv);
  for (int i = 1; i < argc; ++i)
    if (std::strncmp(argv[i], kFlag, std::strlen(kFlag)) == 0)
      lapidary::tokenizer_dir = argv[i] + std::strlen(kFlag);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
