// How decode attention is cut: the tiles of a configuration, the units of a step, and the run of
// them that a block takes. Everything follows from the rows' slots and key ends, read by each block
// on its own.
#ifndef LAPIDARY_KERNELS_ATTENTION_DECODE_SCHEDULE_CUH_
#define LAPIDARY_KERNELS_ATTENTION_DECODE_SCHEDULE_CUH_

#include <type_traits>

#include "kernels/attention/decode.h"
#include "kernels/common/math.cuh"

namespace lapidary::kernels {

// The sequences of a step, where blocks take runs of all work.
struct DecodeSequences {
  int page_base[kMaxDecodeSequences + 1];  // first page of each sequence in the order of the work
  int ends[kMaxDecodeSequences];           // key_ends of the rows
  uint16_t row_start[kMaxDecodeSequences + 1];
  int num_sequences;
  int scan[8];  // of the consumer warps
};
struct NoSequences {};

// kOwnBlocks: of the kernel that gives an item blocks of its own (decode_window.cuh).
template <int kHeadDim_, int kRowTiles_, bool kFolded_ = false, bool kOwnBlocks_ = false>
struct DecodeConfig {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kFolded = kFolded_, kOwnBlocks = kOwnBlocks_;
  static_assert(!kFolded || kHeadDim == kFoldedHeadDim);
  static constexpr int kRowTiles = kRowTiles_;  // of 16 rows, the M of an MMA
  static constexpr int kRows = 16 * kRowTiles;  // packed rows (query row, head) of an item
  static constexpr int kConsumerWarps = 8;      // eight keys of a page each
  static constexpr int kConsumers = kConsumerWarps * 32;
  // And the producer's warp, or its warpgroup where it gives registers to the others.
  static constexpr int kThreads = kConsumers + (kOwnBlocks ? 32 : 128);
  static constexpr int kProducerRegisters = kFolded ? 40 : 56,
                       kConsumerRegisters = kFolded ? 232 : 224;
  // Small where the ring is small: a stage is free again as soon as its keys are used.
  static constexpr int kStageKeys =
      kFolded ? 16 : (kHeadDim == 512 && kRowTiles == 2 ? 16384 : 32768) / (2 * kHeadDim);
  static constexpr int kKeyBytes = 2 * (kFolded ? kFoldedColumns : kHeadDim);
  static constexpr int kStageBytes = kStageKeys * kKeyBytes;
  static constexpr int kTileStages = kPageTokens / kStageKeys;  // of a page's K or V, or of both
  // Of a stage's columns, in 16 bytes, those of V begin here.
  static constexpr int kValueChunk = kFolded ? kFoldedKeyColumns / 8 : 0;
  static constexpr int kColumns = kHeadDim / kConsumerWarps;  // of O, a warp
  static constexpr int kColumnTiles = kColumns / 8;           // the N of an MMA
  // What an item has gathered so far stays in registers beside the unit at work, or, where two do
  // not fit, in shared memory.
  static constexpr bool kMergesInRegisters = kRowTiles * kColumnTiles <= 8 || kFolded;

  // Pages that the warps take at a time, from one whose index is a multiple: with two they meet
  // half as often, and what is read of Q serves both. The same for any number of rows: a weight is
  // taken against the maximum of all of them. The ring must hold the keys of all.
  static constexpr int kPages = kHeadDim == 256 ? 2 : 1;

  // Shared memory, from a 1024-byte border: the ring, Q in blocks of 64 columns, P, then small
  // things.
  static constexpr int kQBytes = kRows * kHeadDim * 2;
  static constexpr int kPBytes = kRows * 128;  // of one page
  static constexpr int kMergedBytes = kMergesInRegisters ? 0 : kRows * kHeadDim * 4;
  static constexpr int kSmallBytes = (2 * kConsumerWarps + 1) * kRows * 4 +
                                     (kOwnBlocks ? 0 : static_cast<int>(sizeof(DecodeSequences))) +
                                     384;
  static constexpr int kMaxSharedBytes = 232448;  // of a block, on sm_90
  static constexpr int kStages =
      (kMaxSharedBytes - 1024 - kQBytes - kPages * kPBytes - kMergedBytes - kSmallBytes) /
      kStageBytes;
  static constexpr int kQ = kStages * kStageBytes, kP = kQ + kQBytes,
                       kMerged = kP + kPages * kPBytes;
  static constexpr int kSmall = kMerged + kMergedBytes;
  static constexpr int kSharedBytes = kSmall + kSmallBytes + 1024;
  static_assert(kStages > kPages * kTileStages, "the ring must hold the tiles and the next stage");
  static_assert(kOwnBlocks ||
                    kConsumers * kConsumerRegisters + 128 * kProducerRegisters <= kThreads * 168,
                "setmaxnreg shares out what the launch allocated");
  static_assert(kColumns % 16 == 0, "V is loaded 16 columns at a time");
  static_assert(kSharedBytes <= kMaxSharedBytes, "shared memory plan");
  static_assert(kStages <= 16, "barriers of DecodeShared");
};

// What lies behind kSmall.
template <typename Config>
struct DecodeShared {
  float4 max[Config::kRows][Config::kConsumerWarps / 4];  // a row's, of each warp
  float4 sum[Config::kRows][Config::kConsumerWarps / 4];
  int ends[Config::kRows];
  unsigned long long full[16], empty[16];  // mbarriers of the ring
  std::conditional_t<Config::kOwnBlocks, NoSequences, DecodeSequences> sequences;
};

// One sequence as the schedule sees it.
struct DecodeItem {
  int first_row, num_rows, tiles;
  int first_page, last_page, first_split, num_splits;

  __device__ int pages() const { return max(last_page - first_page + 1, 1); }
};

__device__ __forceinline__ int KeyBegin(int end, int window) {
  return window > 0 ? max(end - window, 0) : 0;
}

// The unit of a full layer that a page lies in: units are 4 pages long, from the 64th page on 8,
// from the 512th 32, from the 2048th 128. So short contexts fill more of the machine, long ones
// leave few partial results, and still a unit depends on nothing but its pages.
__host__ __device__ __forceinline__ int FullSplitOf(int page) {
  if (page < 64) return page / 4;
  if (page < 512) return 16 + (page - 64) / 8;
  return page < 2048 ? 72 + (page - 512) / 32 : 120 + (page - 2048) / 128;
}
__device__ __forceinline__ int FullSplitPage(int split) {
  if (split <= 16) return split * 4;
  if (split <= 72) return 64 + (split - 16) * 8;
  return split <= 120 ? 512 + (split - 72) * 32 : 2048 + (split - 120) * 128;
}

__host__ __device__ __forceinline__ int SlidingSplit(int window) {
  return window <= kShortWindow ? kShortWindowSplitPages : kSlidingSplitPages;
}

// Folded layers are full ones: a window known to be none leaves registers for more.
template <typename Config>
__device__ __forceinline__ int WindowOf(const DecodeAttentionParams& p) {
  return Config::kFolded ? 0 : p.window;
}
__device__ __forceinline__ int SplitOf(int window, int page) {
  return window > 0 ? page / SlidingSplit(window) : FullSplitOf(page);
}
__device__ __forceinline__ int SplitPage(int window, int split) {
  return window > 0 ? split * SlidingSplit(window) : FullSplitPage(split);
}

// The pages and units of a sequence's rows that see keys [begin, end) together; end 0: none.
template <typename Config>
__device__ __forceinline__ DecodeItem MakeItem(const DecodeAttentionParams& p, int first_row,
                                               int num_rows, int begin, int end) {
  DecodeItem item;
  item.first_row = first_row;
  item.num_rows = num_rows;
  const int group = p.num_heads / p.kv.num_kv_heads, window = WindowOf<Config>(p);
  item.tiles = (num_rows * group + Config::kRows - 1) / Config::kRows;
  item.first_page = window > 0 && end > 0 ? begin / kPageTokens : 0;
  item.last_page = end > 0 ? (end - 1) / kPageTokens : -1;
  item.first_split = window > 0 ? SplitOf(window, item.first_page) : 0;
  item.num_splits = end > 0 ? SplitOf(window, item.last_page) - item.first_split + 1 : 1;
  return item;
}

template <typename Config>
__device__ __forceinline__ DecodeItem LoadSequence(const DecodeAttentionParams& p,
                                                   const DecodeShared<Config>& shared,
                                                   int sequence) {
  const int first_row = shared.sequences.row_start[sequence];
  const int num_rows = shared.sequences.row_start[sequence + 1] - first_row;
  const int window = WindowOf<Config>(p);
  int end = 0, begin = window > 0 ? 0x7fffffff : 0;
  for (int i = 0; i < num_rows; ++i) {
    const int row_end = shared.sequences.ends[first_row + i];
    if (row_end <= 0) continue;  // a masked row
    end = max(end, row_end);
    if (window > 0) begin = min(begin, KeyBegin(row_end, window));
  }
  return MakeItem<Config>(p, first_row, num_rows, begin, end);
}

// The rows of an item: a tile of the packed rows of a sequence and a KV head.
struct QueryTile {
  int first_row, num_rows;  // of the sequence
  int kv_head, tile;
};

// The keys that some row of an item sees; none if the end is 0.
struct ItemKeys {
  int begin, end;
};

// Walks the units of a run; producer and consumers each have one and see the same units.
template <typename Config>
struct DecodeWalk {
  const DecodeAttentionParams& p;
  const DecodeShared<Config>& shared;
  int run_begin, run_end;  // in pages of the order of the work
  int sequence = 0, item = 0,
      split = 0;  // item: kv_head * tiles + tile; split counts from the item's first
  DecodeItem s;

  __device__ DecodeWalk(const DecodeAttentionParams& params, const DecodeShared<Config>& from)
      : p(params), shared(from) {
    const long long total = shared.sequences.page_base[shared.sequences.num_sequences];
    run_begin = static_cast<int>(total * blockIdx.x / gridDim.x);
    run_end = static_cast<int>(total * (blockIdx.x + 1) / gridDim.x);
    // The last sequence whose pages begin at or before the run.
    int low = 0, high = shared.sequences.num_sequences;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (shared.sequences.page_base[middle] <= run_begin)
        low = middle;
      else
        high = middle;
    }
    sequence = low;
    s = LoadSequence<Config>(p, shared, sequence);
    item = (run_begin - shared.sequences.page_base[sequence]) / s.pages();
    split = 0;
    while (!Done() && UnitOffset(split) < run_begin) Next();
  }
  __device__ int ItemOffset() const {
    return shared.sequences.page_base[sequence] + item * s.pages();
  }
  __device__ int UnitOffset(int of_split) const {
    const int first_page = SplitPage(WindowOf<Config>(p), s.first_split + of_split);
    return ItemOffset() + max(0, first_page - s.first_page);
  }
  __device__ bool Done() const {
    return sequence >= shared.sequences.num_sequences || UnitOffset(split) >= run_end;
  }
  __device__ void Next() {
    if (++split < s.num_splits) return;
    split = 0;
    if (++item < s.tiles * p.kv.num_kv_heads) return;
    item = 0;
    do {
      if (++sequence >= shared.sequences.num_sequences) return;
    } while (shared.sequences.page_base[sequence + 1] == shared.sequences.page_base[sequence]);
    s = LoadSequence<Config>(p, shared, sequence);
  }
  __device__ int kv_head() const { return item / s.tiles; }
  __device__ int tile() const { return item % s.tiles; }
  __device__ int key_end(int row) const { return shared.sequences.ends[row]; }
  // A warp calls together.
  __device__ ItemKeys Keys() const {
    const int group = p.num_heads / p.kv.num_kv_heads, lane = threadIdx.x % 32;
    const int first = tile() * Config::kRows / group;
    const int last = min((tile() * Config::kRows + Config::kRows - 1) / group, s.num_rows - 1);
    const int end = first + lane <= last ? key_end(s.first_row + first + lane) : 0;
    const int last_end = __reduce_max_sync(kFullWarp, end), window = WindowOf<Config>(p);
    if (window == 0) return {0, last_end};
    const int begin = end > 0 ? KeyBegin(end, window) : 0x7fffffff;
    return {__reduce_min_sync(kFullWarp, begin), last_end};
  }
  // All units of the item are in this run.
  __device__ bool OwnsItem() const {
    return ItemOffset() >= run_begin && UnitOffset(s.num_splits - 1) < run_end;
  }
};

// The pages of an item's keys in a unit; empty if last < first. Walk: DecodeWalk or WindowWalk.
struct UnitRange {
  int first_page, last_page;
};
template <typename Config, typename Walk>
__device__ __forceinline__ UnitRange RangeOf(const Walk& walk, const ItemKeys& keys) {
  const int split = walk.s.first_split + walk.split;
  UnitRange range;
  const int window = WindowOf<Config>(walk.p);
  range.first_page = max(SplitPage(window, split), keys.begin / kPageTokens);
  range.last_page =
      min(SplitPage(window, split + 1), (keys.end + kPageTokens - 1) / kPageTokens) - 1;
  if (keys.end == 0) range.last_page = range.first_page - 1;
  return range;
}

// Inclusive sum over the consumers; everybody calls, the producer's warps with 0. `total` is the
// sum of all.
template <typename Config>
__device__ int ScanConsumers(int value, DecodeShared<Config>& shared, int& total) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int below = __shfl_up_sync(kFullWarp, value, offset);
    if (lane >= offset) value += below;
  }
  if (lane == 31 && warp < Config::kConsumerWarps) shared.sequences.scan[warp] = value;
  __syncthreads();
  total = 0;
#pragma unroll
  for (int w = 0; w < Config::kConsumerWarps; ++w) {
    if (w < warp) value += shared.sequences.scan[w];
    total += shared.sequences.scan[w];
  }
  __syncthreads();
  return value;
}

// Where each sequence's rows begin, and its pages in the order of the work.
template <typename Config>
__device__ void ScanSequences(const DecodeAttentionParams& p, DecodeShared<Config>& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  int num_sequences = 0;
  for (int base = 0; base < p.rows.num_rows; base += Config::kConsumers) {
    const int row = base + thread;
    bool starts = false;
    if (thread < Config::kConsumers && row < p.rows.num_rows) {
      const int slot = p.rows.slots[row], before = row > 0 ? p.rows.slots[row - 1] : 0;
      shared.sequences.ends[row] = p.rows.key_ends[row];
      starts = row == 0 || slot != before;
    }
    int total;
    const int index = num_sequences + ScanConsumers<Config>(starts ? 1 : 0, shared, total);
    if (starts && index <= kMaxDecodeSequences)
      shared.sequences.row_start[index - 1] = static_cast<uint16_t>(row);
    num_sequences += total;
  }
  num_sequences = min(num_sequences, kMaxDecodeSequences);
  if (thread == 0) {
    shared.sequences.num_sequences = num_sequences;
    shared.sequences.row_start[num_sequences] = static_cast<uint16_t>(p.rows.num_rows);
    shared.sequences.page_base[0] = 0;
  }
  __syncthreads();
  int carry = 0;
  for (int base = 0; base < num_sequences; base += Config::kConsumers) {
    const int sequence = base + thread;
    int pages = 0;
    if (thread < Config::kConsumers && sequence < num_sequences) {
      const DecodeItem s = LoadSequence<Config>(p, shared, sequence);
      pages = s.tiles * p.kv.num_kv_heads * s.pages();
    }
    int total;
    const int below = ScanConsumers<Config>(pages, shared, total);
    if (thread < Config::kConsumers && sequence < num_sequences)
      shared.sequences.page_base[sequence + 1] = carry + below;
    carry += total;
  }
  __syncthreads();
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_DECODE_SCHEDULE_CUH_
