#include "ops/cuda/row_sampler.h"

#include <algorithm>
#include <cstring>

#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

// Room for the lists of one launch; what one query can bring besides its history is less than
// kQueryBytes.
constexpr int64_t kListBytes = int64_t{4} << 20, kQueryBytes = int64_t{1} << 20;
constexpr int64_t kAlignment = 16;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
int64_t Bytes(const std::vector<T>& list) {
  return Aligned(static_cast<int64_t>(list.size() * sizeof(T)));
}

template <typename T>
int32_t Count(const std::vector<T>& list) {
  return static_cast<int32_t>(list.size());
}

template <typename T>
const T* Place(const std::vector<T>& list, std::vector<char>& bytes, const void* device) {
  const size_t at = bytes.size();
  bytes.resize(at + static_cast<size_t>(Bytes(list)));
  std::copy(list.begin(), list.end(), reinterpret_cast<T*>(bytes.data() + at));
  return reinterpret_cast<const T*>(static_cast<const char*>(device) + at);
}

bool EndsWith(std::span<const int32_t> history, std::span<const int32_t> tail) {
  return history.size() >= tail.size() && std::equal(tail.rbegin(), tail.rend(), history.rbegin());
}

}  // namespace

CudaRowSampler::CudaRowSampler(CudaDevice& device, int vocab_size, int max_rows)
    : device_(device), vocab_size_(vocab_size), max_rows_(max_rows) {
  constexpr int64_t kChunks = kernels::kMaxRowChunks, kBest = kernels::kMaxChunkBest;
  const int64_t rows = max_rows, vocab = vocab_size;
  seen_.resize(static_cast<size_t>(vocab_size));
  const int64_t list_bytes =
      kListBytes + kQueryBytes + vocab * static_cast<int64_t>(sizeof(kernels::IdCount));
  upload_ =
      DeviceMemory(device, list_bytes + rows * static_cast<int64_t>(sizeof(kernels::RowTask)));
  staging_ = HostMemory(device, upload_.bytes());
  const auto summary_bytes =
                 Aligned(rows * kChunks * static_cast<int64_t>(sizeof(kernels::ChunkSummary))),
             best_bytes = rows * kChunks * kBest * static_cast<int64_t>(sizeof(uint64_t));
  scratch_ = DeviceMemory(device, summary_bytes + 2 * best_bytes);
  // Results, scores, log probabilities that were asked for.
  const int64_t result_bytes = rows * static_cast<int64_t>(sizeof(kernels::RowResult));
  results_ = DeviceMemory(
      device, result_bytes + rows * static_cast<int64_t>(sizeof(kernels::RowScores)) + list_bytes);
  char* scratch = static_cast<char*>(scratch_.data());
  params_.vocab = vocab_size;
  params_.chunks = reinterpret_cast<kernels::ChunkSummary*>(scratch);
  params_.best = reinterpret_cast<uint64_t*>(scratch + summary_bytes);
  params_.raw_best = reinterpret_cast<uint64_t*>(scratch + summary_bytes + best_bytes);
  params_.results = static_cast<kernels::RowResult*>(results_.data());
}

std::span<RowAnswer> CudaRowSampler::Sample(Tensor logits, std::span<const RowQuery> queries) {
  answers_.assign(queries.size(), {});
  std::span<RowAnswer> answers(answers_);
  while (!queries.empty()) {
    const size_t count = Upload(queries);
    Launch(logits);
    Download(queries.first(count), answers.first(count));
    queries = queries.subspan(count);
    answers = answers.subspan(count);
  }
  return answers_;
}

size_t CudaRowSampler::Upload(std::span<const RowQuery> queries) {
  lists_.tasks.clear();
  lists_.biases.clear();
  lists_.counts.clear();
  lists_.masked.clear();
  lists_.asked.clear();
  lists_.allowed.clear();
  shared_suppress_ = {};
  shared_masked_ = {};
  work_ = {};
  size_t count = 0;
  while (count < queries.size() && count < static_cast<size_t>(max_rows_) &&
         UploadBytes() < kListBytes)
    AddTask(queries[count++]);
  bytes_.clear();
  const void* device = upload_.data();
  params_.tasks = Place(lists_.tasks, bytes_, device);
  params_.biases = Place(lists_.biases, bytes_, device);
  params_.counts = Place(lists_.counts, bytes_, device);
  params_.masked = Place(lists_.masked, bytes_, device);
  params_.asked = Place(lists_.asked, bytes_, device);
  params_.allowed = Place(lists_.allowed, bytes_, device);
  CHECK(static_cast<int64_t>(bytes_.size()) <= upload_.bytes(), "{} bytes of queries, room for {}",
        bytes_.size(), upload_.bytes());
  std::memcpy(staging_.data(), bytes_.data(), bytes_.size());
  device_.QueueCopyIn(upload_.data(), staging_.data(), static_cast<int64_t>(bytes_.size()));
  params_.num_tasks = static_cast<int>(count);
  params_.scores = reinterpret_cast<kernels::RowScores*>(params_.results + count);
  params_.asked_logprobs = reinterpret_cast<float*>(params_.scores + count);
  return count;
}

void CudaRowSampler::Launch(Tensor logits) {
  CHECK(logits.cols() == vocab_size_, "{} logits, vocabulary {}", logits.cols(), vocab_size_);
  params_.logits = logits.f32();
  params_.logits_stride = logits.row_stride;
  if (work_.scores) device_.Fill(results_.data(), 0, ResultBytes());
  kernels::LaunchRowSampling(params_, work_, device_.stream());
}

// Of what the kernels write for the uploaded tasks, scores only if they are wanted.
int64_t CudaRowSampler::ResultBytes() const {
  const size_t count = lists_.tasks.size();
  size_t bytes = count * sizeof(kernels::RowResult);
  if (work_.scores)
    bytes += count * sizeof(kernels::RowScores) + lists_.asked.size() * sizeof(float);
  return static_cast<int64_t>(bytes);
}

int64_t CudaRowSampler::UploadBytes() const {
  return Bytes(lists_.biases) + Bytes(lists_.counts) + Bytes(lists_.masked) + Bytes(lists_.asked) +
         Bytes(lists_.allowed);
}

void CudaRowSampler::AddTask(const RowQuery& query) {
  kernels::RowTask& task = lists_.tasks.emplace_back();
  task.row = Int(query.row);
  task.token = query.token;
  if (query.draws) AddDraw(query, task);
  if (!query.wants_logprobs) return;
  work_.scores = true;
  task.scores = 1;
  task.num_top = std::min(query.num_top, vocab_size_);
  CHECK(task.num_top <= kernels::kMaxTopLogprobs, "{} top log probabilities", task.num_top);
  task.asked.begin = Count(lists_.asked);
  lists_.asked.insert(lists_.asked.end(), query.asked.begin(), query.asked.end());
  task.asked.end = Count(lists_.asked);
}

void CudaRowSampler::AddDraw(const RowQuery& query, kernels::RowTask& task) {
  const SamplingRow& row = query.sampling;
  task.draws = 1;
  task.temperature = row.temperature;
  task.top_k = row.top_k;
  task.top_p = row.top_p;
  task.min_p = row.min_p;
  task.presence_penalty = row.presence_penalty;
  task.frequency_penalty = row.frequency_penalty;
  task.repetition_penalty = row.repetition_penalty;
  task.uniform = UniformAt(row.seed, row.choice, row.position);
  task.biases = AddBiases(row);
  task.counts = AddCounts(row);
  task.masked = AddMasked(row);
  if (!row.allowed.empty()) {
    task.allowed = Count(lists_.allowed);
    lists_.allowed.resize(lists_.allowed.size() + static_cast<size_t>(vocab_size_ + 31) / 32);
    uint32_t* words = lists_.allowed.data() + task.allowed;
    for (const int32_t id : row.allowed) words[id / 32] |= 1u << id % 32;
  }
  const bool is_greedy = row.temperature < 1e-5f;
  work_.searches |= !is_greedy && (row.top_k == 0 || row.top_k > kernels::kMaxExactTopK);
}

// Rows that mask the engine's suppressed ids only share one list.
kernels::IdRange CudaRowSampler::AddMasked(const SamplingRow& row) {
  const bool is_shared = row.bad_words.empty() && row.held_off.empty();
  if (is_shared && row.suppress.data() == shared_suppress_.data() &&
      row.suppress.size() == shared_suppress_.size())
    return shared_masked_;
  kernels::IdRange range;
  range.begin = Count(lists_.masked);
  lists_.masked.insert(lists_.masked.end(), row.suppress.begin(), row.suppress.end());
  lists_.masked.insert(lists_.masked.end(), row.held_off.begin(), row.held_off.end());
  const std::span<const int32_t> generated = row.history.subspan(row.num_prompt);
  for (const std::vector<int32_t>& word : row.bad_words) {
    const std::span<const int32_t> ids(word);
    if (!ids.empty() && EndsWith(generated, ids.first(ids.size() - 1)))
      lists_.masked.push_back(ids.back());
  }
  range.end = Count(lists_.masked);
  if (is_shared) shared_suppress_ = row.suppress, shared_masked_ = range;
  return range;
}

kernels::IdRange CudaRowSampler::AddBiases(const SamplingRow& row) {
  std::vector<kernels::IdBias>& list = lists_.biases;
  kernels::IdRange range;
  range.begin = Count(list);
  for (const auto& [id, bias] : row.bias) {
    int32_t& place = seen_.at(static_cast<size_t>(id));
    if (place == 0) {
      list.push_back({id, bias});
      place = Count(list);
    } else {
      list[static_cast<size_t>(place - 1)].bias += bias;
    }
  }
  range.end = Count(list);
  for (const auto& [id, bias] : row.bias) seen_[static_cast<size_t>(id)] = 0;
  return range;
}

// The distinct ids that penalties are for, and how often each was generated.
kernels::IdRange CudaRowSampler::AddCounts(const SamplingRow& row) {
  std::vector<kernels::IdCount>& list = lists_.counts;
  kernels::IdRange range{Count(list), Count(list)};
  const bool repeats = row.repetition_penalty != 1.0f;
  if (!repeats && row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f) return range;
  for (size_t i = repeats ? 0 : row.num_prompt; i < row.history.size(); ++i) {
    int32_t& place = seen_.at(static_cast<size_t>(row.history[i]));
    if (place == 0) {
      list.push_back({row.history[i], 0});
      place = Count(list);
    }
    if (i >= row.num_prompt) ++list[static_cast<size_t>(place - 1)].count;
  }
  range.end = Count(list);
  for (int32_t i = range.begin; i < range.end; ++i)
    seen_[static_cast<size_t>(list[static_cast<size_t>(i)].id)] = 0;
  return range;
}

void CudaRowSampler::Download(std::span<const RowQuery> queries, std::span<RowAnswer> answers) {
  bytes_.resize(static_cast<size_t>(ResultBytes()));
  device_.CopyOut(bytes_.data(), results_.data(), ResultBytes());
  const auto* results = reinterpret_cast<const kernels::RowResult*>(bytes_.data());
  const auto* scores = reinterpret_cast<const kernels::RowScores*>(results + queries.size());
  const auto* asked = reinterpret_cast<const float*>(scores + queries.size());
  for (size_t i = 0; i < queries.size(); ++i) {
    const RowQuery& query = queries[i];
    const kernels::RowTask& task = lists_.tasks[i];
    const kernels::RowResult& result = results[i];
    answers[i].finite = result.is_finite != 0;
    if (!answers[i].finite) continue;
    if (query.draws && result.token >= 0) answers[i].token = result.token;
    if (!query.wants_logprobs || (query.draws && !answers[i].token)) continue;
    TokenLogprobs& logprobs = answers[i].logprobs.emplace();
    logprobs.token = query.draws ? result.token : query.token;
    logprobs.logprob = scores[i].logprob;
    for (int n = 0; n < task.num_top; ++n)
      logprobs.top.emplace_back(scores[i].top_ids[n], scores[i].top_logprobs[n]);
    for (size_t n = 0; n < query.asked.size(); ++n)
      logprobs.asked.emplace_back(query.asked[n], asked[static_cast<size_t>(task.asked.begin) + n]);
  }
}

std::unique_ptr<RowSampler> CudaBackend::MakeRowSampler(int vocab_size, int max_rows) {
  return std::make_unique<CudaRowSampler>(*device_, vocab_size, max_rows);
}

}  // namespace lapidary::cuda
