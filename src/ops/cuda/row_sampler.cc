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

CudaRowSampler::CudaRowSampler(CudaDevice& device, int vocab_size, int max_rows,
                               const CudaSlotStates* slots)
    : device_(device), vocab_size_(vocab_size), max_rows_(max_rows), slots_(slots) {
  constexpr int64_t kChunks = kernels::kMaxRowChunks, kBest = kernels::kMaxChunkBest;
  const int64_t rows = max_rows, vocab = vocab_size;
  const auto task_bytes = rows * static_cast<int64_t>(sizeof(kernels::RowTask));
  seen_.resize(static_cast<size_t>(vocab_size));
  const int64_t list_bytes =
      kListBytes + kQueryBytes + vocab * static_cast<int64_t>(sizeof(kernels::IdCount));
  upload_ = DeviceMemory(device, list_bytes + task_bytes);
  for (Stage& stage : stages_) stage.memory = HostMemory(device, upload_.bytes());
  const auto summary_bytes =
                 Aligned(rows * kChunks * static_cast<int64_t>(sizeof(kernels::ChunkSummary))),
             best_bytes = rows * kChunks * kBest * static_cast<int64_t>(sizeof(uint64_t));
  scratch_ = DeviceMemory(device, summary_bytes + 2 * best_bytes);
  for (Call& call : calls_) AllocateResults(call, ResultBytes(call) + kQueryBytes);
  best_upload_ = DeviceMemory(device, task_bytes + vocab * static_cast<int64_t>(sizeof(int32_t)));
  best_results_ = DeviceMemory(device, rows * static_cast<int64_t>(sizeof(kernels::RowResult)));
  char* scratch = static_cast<char*>(scratch_.data());
  params_.vocab = vocab_size;
  params_.chunks = reinterpret_cast<kernels::ChunkSummary*>(scratch);
  params_.best = reinterpret_cast<uint64_t*>(scratch + summary_bytes);
  params_.raw_best = reinterpret_cast<uint64_t*>(scratch + summary_bytes + best_bytes);
}

// Scores and what was asked lie behind the results of max_rows rows.
int64_t CudaRowSampler::ResultBytes(const Call& call) const {
  return static_cast<int64_t>(static_cast<size_t>(max_rows_) *
                                  (sizeof(kernels::RowResult) + sizeof(kernels::RowScores)) +
                              call.ids.size() * sizeof(float));
}

void CudaRowSampler::AllocateResults(Call& call, int64_t bytes) {
  if (bytes <= call.results.bytes()) return;
  device_.Synchronize();
  call.results = DeviceMemory(device_, bytes);
  call.copy = HostMemory(device_, bytes);
}

void CudaRowSampler::BeginCall(std::span<const RowQuery> queries) {
  CHECK(queries.size() <= static_cast<size_t>(max_rows_), "{} queries, at most {}", queries.size(),
        max_rows_);
  Call& call = calls_[++num_calls_ % calls_.size()];
  call.number = num_calls_;
  call.asked.clear();
  call.ids.clear();
  call.has_scores = false;
  for (const RowQuery& query : queries) {
    Asked& asked = call.asked.emplace_back();
    asked = {
        query.draws, query.wants_logprobs, query.token, std::min(query.num_top, vocab_size_), {}};
    if (!query.wants_logprobs) continue;
    call.has_scores = true;
    asked.ids.begin = Count(call.ids);
    call.ids.insert(call.ids.end(), query.asked.begin(), query.asked.end());
    asked.ids.end = Count(call.ids);
  }
  AllocateResults(call, ResultBytes(call));
  num_queued_ = num_asked_ = 0;
  // Places behind num_top are not written.
  if (call.has_scores) device_.Fill(call.results.data(), 0, ResultBytes(call));
}

RowDraws CudaRowSampler::Queue(Tensor logits, std::span<const RowQuery> queries) {
  BeginCall(queries);
  Call& call = calls_[num_calls_ % calls_.size()];
  while (num_queued_ < queries.size()) {
    const size_t count = Upload(queries.subspan(num_queued_));
    Launch(logits);
    num_queued_ += count;
    num_asked_ += lists_.asked.size();
  }
  if (call.has_scores) {
    device_.QueueCopyOut(call.copy.data(), call.results.data(), ResultBytes(call));
    call.mark = device_.Mark();
  }
  return {MakeTensor(call.results.data(), DType::kI32, static_cast<int64_t>(queries.size()), 2),
          num_calls_};
}

std::span<RowAnswer> CudaRowSampler::Answers(uint64_t number) {
  const Call& call = calls_[number % calls_.size()];
  CHECK(call.number == number, "answers of call {}, the newest is {}", number, num_calls_);
  if (call.has_scores)
    device_.WaitFor(call.mark);
  else
    device_.CopyOut(call.copy.data(), call.results.data(),
                    static_cast<int64_t>(call.asked.size() * sizeof(kernels::RowResult)));
  answers_.clear();
  for (size_t i = 0; i < call.asked.size(); ++i) answers_.push_back(AnswerOf(call, i));
  return answers_;
}

RowAnswer CudaRowSampler::AnswerOf(const Call& call, size_t i) const {
  const auto* results = static_cast<const kernels::RowResult*>(call.copy.data());
  const auto* scores = reinterpret_cast<const kernels::RowScores*>(results + max_rows_);
  const auto* logprobs_of_ids = reinterpret_cast<const float*>(scores + max_rows_);
  const Asked& asked = call.asked[i];
  RowAnswer answer;
  answer.finite = results[i].is_finite != 0;
  if (!answer.finite) return answer;
  if (asked.draws && results[i].token >= 0) answer.token = results[i].token;
  if (!asked.wants_logprobs || (asked.draws && !answer.token)) return answer;
  TokenLogprobs& logprobs = answer.logprobs.emplace();
  logprobs.token = asked.draws ? results[i].token : asked.token;
  logprobs.logprob = scores[i].logprob;
  for (int n = 0; n < asked.num_top; ++n)
    logprobs.top.emplace_back(scores[i].top_ids[n], scores[i].top_logprobs[n]);
  for (int32_t n = asked.ids.begin; n < asked.ids.end; ++n)
    logprobs.asked.emplace_back(call.ids[static_cast<size_t>(n)], logprobs_of_ids[n]);
  return answer;
}

// One list of tasks serves all calls with the same mask.
Tensor CudaRowSampler::Best(Tensor logits, std::span<const int32_t> masked) {
  CHECK(logits.cols() == vocab_size_ && logits.rows() <= max_rows_,
        "[{},{}] logits, at most [{},{}]", logits.rows(), logits.cols(), max_rows_, vocab_size_);
  const auto* tasks = static_cast<const kernels::RowTask*>(best_upload_.data());
  if (!best_masked_ ||
      !std::equal(masked.begin(), masked.end(), best_masked_->begin(), best_masked_->end())) {
    best_masked_.emplace(masked.begin(), masked.end());
    std::vector<kernels::RowTask> greedy(static_cast<size_t>(max_rows_));
    for (size_t i = 0; i < greedy.size(); ++i) {
      greedy[i].row = static_cast<int32_t>(i);
      greedy[i].draws = 1;
      greedy[i].masked = {0, Count(*best_masked_)};
    }
    bytes_.clear();
    Place(greedy, bytes_, best_upload_.data());
    Place(*best_masked_, bytes_, best_upload_.data());
    CHECK(static_cast<int64_t>(bytes_.size()) <= best_upload_.bytes(), "{} masked ids",
          masked.size());
    device_.CopyIn(best_upload_.data(), bytes_.data(), static_cast<int64_t>(bytes_.size()));
  }
  kernels::RowSamplingParams params = params_;
  params.logits = logits.f32();
  params.logits_stride = logits.row_stride;
  params.tasks = tasks;
  params.masked = reinterpret_cast<const int32_t*>(
      static_cast<const char*>(best_upload_.data()) +
      Aligned(static_cast<int64_t>(static_cast<size_t>(max_rows_) * sizeof(kernels::RowTask))));
  params.num_tasks = Int(logits.rows());
  params.results = static_cast<kernels::RowResult*>(best_results_.data());
  kernels::LaunchRowSampling(params, {}, device_.stream());
  return MakeTensor(best_results_.data(), DType::kI32, logits.rows(), 2);
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
  places_ = false;
  size_t count = 0;
  while (count < queries.size() && UploadBytes() < kListBytes) AddTask(queries[count++]);
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
  Stage& stage = stages_[stage_++ % stages_.size()];
  if (stage.mark > 0) device_.WaitFor(stage.mark);
  std::memcpy(stage.memory.data(), bytes_.data(), bytes_.size());
  device_.QueueCopyIn(upload_.data(), stage.memory.data(), static_cast<int64_t>(bytes_.size()));
  stage.mark = device_.Mark();
  auto* results =
      static_cast<kernels::RowResult*>(calls_[num_calls_ % calls_.size()].results.data());
  auto* scores = reinterpret_cast<kernels::RowScores*>(results + max_rows_);
  params_.num_tasks = static_cast<int>(count);
  params_.results = results + num_queued_;
  params_.scores = scores + num_queued_;
  params_.asked_logprobs = reinterpret_cast<float*>(scores + max_rows_) + num_asked_;
  return count;
}

void CudaRowSampler::Launch(Tensor logits) {
  CHECK(logits.cols() == vocab_size_, "{} logits, vocabulary {}", logits.cols(), vocab_size_);
  params_.logits = logits.f32();
  params_.logits_stride = logits.row_stride;
  if (places_)
    kernels::LaunchPlaceUniforms(static_cast<kernels::RowTask*>(upload_.data()), params_.num_tasks,
                                 slots_->states(), device_.stream());
  kernels::LaunchRowSampling(params_, work_, device_.stream());
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
  if (query.slot >= 0) {
    CHECK(slots_ != nullptr, "a query names slot {}, there are none", query.slot);
    task.slot = query.slot;
    task.offset = query.offset;
    places_ = true;
  } else {
    task.uniform = UniformAt(row.seed, row.choice, row.position);
  }
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
  const bool is_plain = row.top_k == 0 && row.top_p >= 1.0f && row.min_p <= 0.0f;
  work_.searches |=
      !is_greedy && !is_plain && (row.top_k == 0 || row.top_k > kernels::kMaxExactTopK);
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

std::unique_ptr<RowSampler> CudaBackend::MakeRowSampler(int vocab_size, int max_rows,
                                                        const SlotStates* slots) {
  return std::make_unique<CudaRowSampler>(*device_, vocab_size, max_rows,
                                          dynamic_cast<const CudaSlotStates*>(slots));
}

}  // namespace lapidary::cuda
