// RoPE, the KV cache and attention over pages. A row sums over its keys page by page in ascending
// position, so its bits depend neither on how the prompt was cut into chunks nor on the other rows.
#include <algorithm>
#include <cmath>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/vector.h"

namespace lapidary::cpu {
namespace {

// The table's page of this position; -1 where it has none.
int32_t TablePage(const RowSet& rows, int64_t row, bool full, int64_t position) {
  const Tensor& table = full ? rows.full_pages : rows.sliding_pages;
  const int64_t cell = position / kPageTokens;
  const int32_t slot = rows.slots.i32()[row];
  CHECK(cell < table.cols() && slot >= 0 && slot < table.rows(),
        "row {} of slot {} needs page cell {} of {}", row, slot, cell, table.cols());
  return table.i32()[slot * table.row_stride + cell];
}

// Where a row's K and V of a position are read: a page of the cache, or of scratch.
struct Place {
  const LayerKv* kv;
  int32_t page;
};

bool InScratch(const RowSet& rows, int64_t row, const AttentionSpec& spec) {
  return !spec.full && rows.chunks.i32()[row] >= 0;
}

Place PlaceOf(const RowSet& rows, int64_t row, const AttentionSpec& spec, int64_t position) {
  if (!InScratch(rows, row, spec)) return {&spec.kv, TablePage(rows, row, spec.full, position)};
  const auto chunk = static_cast<size_t>(rows.chunks.i32()[row]);
  CHECK(chunk < rows.spans.size(), "chunk {} of {}", chunk, rows.spans.size());
  const ChunkSpan& span = rows.spans[chunk];
  const int64_t cell = position / kPageTokens - span.first_cell;
  CHECK(cell >= 0, "row {} needs position {} before its chunk's window", row, position);
  return {&spec.scratch, span.scratch_page + static_cast<int32_t>(cell)};
}

void CopyIn(char* target, DType dtype, const float* values, int64_t count) {
  if (dtype == DType::kF32) {
    std::memcpy(target, values, static_cast<size_t>(count) * sizeof(float));
  } else {
    Bf16* cells = reinterpret_cast<Bf16*>(target);
    for (int64_t i = 0; i < count; ++i) cells[i] = ToBf16(values[i]);
  }
}

// Calls body(columns of K or V, columns of a folded row, how many) for the runs that lie together:
// those of V's row, and those of K's that are its own.
template <typename Body>
void ForEachFoldedRun(const LayerKv& kv, bool key, Body body) {
  const int half = kv.head_dim / 2, pairs = kv.fold_columns / 2;
  const int rotated = key ? 0 : kv.head_dim;
  body(0, rotated, pairs);
  body(half, rotated + pairs, pairs);
  body(pairs, 2 * pairs, half - pairs);
  body(half + pairs, half + pairs, half - pairs);
}

// `count` rows of a page as floats.
const float* PageRows(const char* data, DType dtype, int64_t elements,
                      std::vector<float>& scratch) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(data);
  const Bf16* cells = reinterpret_cast<const Bf16*>(data);
  scratch.resize(static_cast<size_t>(elements));
  for (size_t i = 0; i < scratch.size(); ++i) scratch[i] = ToFloat(cells[i]);
  return scratch.data();
}

// K, or V, of `count` keys of a page from key `first` on, as floats [count,Dh]. Of a folded page K
// is what a query with FoldedQueryNorm expects: V where K does not rotate.
const float* Rows(const Place& at, int kv_head, bool key, int64_t first, int64_t count,
                  std::vector<float>& scratch, std::vector<float>& folded) {
  const LayerKv& kv = *at.kv;
  const int64_t dim = kv.head_dim, element = SizeOf(kv.dtype);
  if (!kv.folded()) {
    const char* part = key ? kv.Keys(at.page, kv_head) : kv.Values(at.page, kv_head);
    return PageRows(part + first * dim * element, kv.dtype, count * dim, scratch);
  }
  const int64_t columns = kv.row_columns();
  const float* rows = PageRows(kv.Keys(at.page, kv_head) + first * columns * element, kv.dtype,
                               count * columns, scratch);
  folded.resize(static_cast<size_t>(count * dim));
  for (int64_t i = 0; i < count; ++i)
    ForEachFoldedRun(kv, key, [&](int column, int in_row, int num_columns) {
      std::copy_n(rows + i * columns + in_row, num_columns, folded.data() + i * dim + column);
    });
  return folded.data();
}

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

struct AttentionScratch {
  std::vector<float> q, scores, out, page, folded;
};

// One query row against one KV head: the `group` query heads that read it.
void AttendRow(Tensor out, const float* q, const RowSet& rows, int64_t row, int kv_head,
               const AttentionSpec& spec, AttentionScratch& scratch) {
  const LayerKv& kv = spec.kv;
  const int64_t dim = kv.head_dim, group = spec.num_heads / kv.num_kv_heads;
  const int64_t end = rows.key_ends.i32()[row];
  const int64_t begin = spec.window > 0 ? std::max<int64_t>(0, end - spec.window) : 0;
  const int64_t count = end - begin;
  const Tensor columns = out.Cols(kv_head * group * dim, group * dim);
  scratch.out.assign(static_cast<size_t>(group * dim), 0.0f);
  if (count <= 0) return WriteRow(columns, row, scratch.out.data(), group * dim);
  scratch.scores.resize(static_cast<size_t>(group * count));

  const auto for_each_page = [&](auto&& body) {
    for (int64_t position = begin; position < end;) {
      const int64_t page_end = std::min(end, (position / kPageTokens + 1) * kPageTokens);
      body(PlaceOf(rows, row, spec, position), position % kPageTokens, position - begin,
           page_end - position);
      position = page_end;
    }
  };
  for_each_page([&](Place at, int64_t first, int64_t index, int64_t num_keys) {
    const float* keys = Rows(at, kv_head, true, first, num_keys, scratch.page, scratch.folded);
    for (int64_t j = 0; j < num_keys; ++j)
      for (int64_t g = 0; g < group; ++g)
        scratch.scores[static_cast<size_t>(g * count + index + j)] =
            Dot(q + g * dim, keys + j * dim, dim);
  });
  // Weights of bf16 values are bf16, and the sum is theirs. The maximum is then rounded up to a
  // whole power of two, which no rounded bit depends on.
  const bool rounds = kv.dtype == DType::kBf16;
  std::vector<float> sums(static_cast<size_t>(group));
  for (int64_t g = 0; g < group; ++g) {
    float* scores = scratch.scores.data() + g * count;
    float largest = *std::max_element(scores, scores + count);
    if (rounds) largest = std::ceil(largest * kLog2E) * kLn2;
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) {
      const float weight = Exp(scores[j] - largest);
      sum += scores[j] = rounds ? RoundToBf16(weight) : weight;
    }
    sums[static_cast<size_t>(g)] = sum;
  }
  for_each_page([&](Place at, int64_t first, int64_t index, int64_t num_keys) {
    const float* values = Rows(at, kv_head, false, first, num_keys, scratch.page, scratch.folded);
    for (int64_t g = 0; g < group; ++g)
      AddWeighted(scratch.out.data() + g * dim, scratch.scores.data() + g * count + index, values,
                  num_keys, dim);
  });
  for (int64_t g = 0; g < group; ++g)
    for (int64_t i = 0; i < dim; ++i)
      scratch.out[static_cast<size_t>(g * dim + i)] /= sums[static_cast<size_t>(g)];
  WriteRow(columns, row, scratch.out.data(), group * dim);
}

}  // namespace

void CpuBackend::FoldedQueryNorm(Tensor q, const QkvSpec& qkv_spec, const AttentionSpec& spec) {
  const LayerKv& kv = spec.kv;
  std::vector<float> weight = ToFloats(qkv_spec.q_norm);
  const std::vector<float> k_norm = ToFloats(qkv_spec.k_norm);
  CHECK(kv.folded() && weight.size() == k_norm.size(), "norms of {} and {}", weight.size(),
        k_norm.size());
  const auto half = static_cast<size_t>(kv.head_dim / 2),
             pairs = static_cast<size_t>(kv.fold_columns / 2);
  for (size_t i = 0; i < weight.size(); ++i)
    if (i % half >= pairs) weight[i] *= k_norm[i];
  RmsNorm(q, q, MakeTensor(weight.data(), DType::kF32, kv.head_dim), spec.norm_eps, kv.head_dim);
}

void CpuBackend::Rope(Tensor x, const RowSet& rows, int head_dim, const RopeSpec& rope) {
  CHECK(x.rows() == rows.num_rows() && x.cols() % head_dim == 0, "rope of [{},{}]", x.rows(),
        x.cols());
  const int64_t half = head_dim / 2;
  // Pairs beyond the rotary share have frequency 0 and pass through (GEMMA4.md 4).
  const int64_t rotated = static_cast<int64_t>(rope.rotary_factor * head_dim / 2);
  std::vector<float> frequency(static_cast<size_t>(rotated));
  for (int64_t j = 0; j < rotated; ++j)
    frequency[static_cast<size_t>(j)] =
        1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(2 * j) / head_dim));
  pool_.ParallelFor(x.rows(), 8, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch, row, cosine(static_cast<size_t>(rotated)),
        sine(static_cast<size_t>(rotated));
    for (int64_t t = begin; t < end; ++t) {
      for (size_t j = 0; j < cosine.size(); ++j) {
        // The angle is an f32 product, as in the reference; its cosine is exact to f32.
        const float angle = static_cast<float>(rows.positions.i32()[t]) * frequency[j];
        cosine[j] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sine[j] = static_cast<float>(std::sin(static_cast<double>(angle)));
        if (x.dtype == DType::kBf16) {
          cosine[j] = RoundToBf16(cosine[j]);
          sine[j] = RoundToBf16(sine[j]);
        }
      }
      const float* in = ReadRow(x, t, scratch);
      row.assign(in, in + x.cols());
      for (int64_t head = 0; head < x.cols(); head += head_dim)
        for (int64_t j = 0; j < rotated; ++j) {
          const float a = in[head + j], b = in[head + j + half];
          const float c = cosine[static_cast<size_t>(j)], s = sine[static_cast<size_t>(j)];
          row[static_cast<size_t>(head + j)] = a * c - b * s;
          row[static_cast<size_t>(head + j + half)] = b * c + a * s;
        }
      WriteRow(x, t, row.data(), x.cols());
    }
  });
}

void CpuBackend::StoreKv(Tensor k, Tensor v, const RowSet& rows, const AttentionSpec& spec) {
  const LayerKv& kv = spec.kv;
  CHECK(k.rows() == rows.num_rows() && k.cols() == int64_t{kv.num_kv_heads} * kv.head_dim,
        "store [{},{}]", k.rows(), k.cols());
  std::vector<float> k_scratch, v_scratch;
  for (int64_t t = 0; t < k.rows(); ++t) {
    const int32_t position = rows.positions.i32()[t];
    const int64_t element = SizeOf(kv.dtype);
    const int64_t offset =
        element * (position % kPageTokens) * (kv.folded() ? kv.row_columns() : kv.head_dim);
    const float* k_row = ReadRow(k, t, k_scratch);
    const float* v_row = ReadRow(v, t, v_scratch);
    const auto store = [&](const Place& at) {
      for (int head = 0; head < kv.num_kv_heads; ++head) {
        const float* const k_head = k_row + int64_t{head} * kv.head_dim;
        const float* const v_head = v_row + int64_t{head} * kv.head_dim;
        char* const keys = at.kv->Keys(at.page, head) + offset;
        if (!kv.folded()) {
          CopyIn(keys, kv.dtype, k_head, kv.head_dim);
          CopyIn(at.kv->Values(at.page, head) + offset, kv.dtype, v_head, kv.head_dim);
          continue;
        }
        // V last: K's columns that do not rotate are not stored.
        for (const bool key : {true, false})
          ForEachFoldedRun(kv, key, [&](int column, int in_row, int count) {
            CopyIn(keys + in_row * element, kv.dtype, (key ? k_head : v_head) + column, count);
          });
      }
    };
    store(PlaceOf(rows, t, spec, position));
    if (!InScratch(rows, t, spec)) continue;
    if (const int32_t page = TablePage(rows, t, false, position); page >= 0) store({&kv, page});
  }
}

void CpuBackend::GatherWindow(std::span<const WindowCopy> copies, const AttentionSpec& spec) {
  const LayerKv& kv = spec.kv;
  for (const WindowCopy& copy : copies)
    for (int head = 0; head < kv.num_kv_heads; ++head)
      std::memcpy(spec.scratch.Keys(copy.to, head), kv.Keys(static_cast<int32_t>(copy.from), head),
                  static_cast<size_t>(kv.head_bytes()));
}

void CpuBackend::CheckTables(const RowSet& rows, const AttentionSpec& spec, int layer) {
  for (int64_t row = 0; row < rows.num_rows(); ++row) {
    const int32_t slot = rows.slots.i32()[row];
    const uint64_t owner =
        rows.owners.empty() ? 0 : rows.owners[static_cast<size_t>(slot) % rows.owners.size()];
    const int64_t end = rows.key_ends.i32()[row];
    const int64_t begin = spec.window > 0 ? std::max<int64_t>(0, end - spec.window) : 0;
    for (int64_t position = begin; position < end;
         position = (position / kPageTokens + 1) * kPageTokens) {
      const Place at = PlaceOf(rows, row, spec, position);
      CHECK(at.page > 0 && at.page < at.kv->num_pages,
            "sequence {} (slot {}), layer {}, row {}: the {} table's cell {} holds {} of {}", owner,
            slot, layer, row, spec.full ? "full" : "sliding", position / kPageTokens, at.page,
            at.kv->num_pages);
    }
  }
}

void CpuBackend::Attention(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec) {
  const LayerKv& kv = spec.kv;
  CHECK(spec.num_heads % kv.num_kv_heads == 0 && q.rows() == rows.num_rows() &&
            out.rows() == q.rows() && q.cols() == int64_t{spec.num_heads} * kv.head_dim &&
            out.cols() == q.cols(),
        "attention of [{},{}], {} heads on {}", q.rows(), q.cols(), spec.num_heads,
        kv.num_kv_heads);
  const int64_t group_width = q.cols() / kv.num_kv_heads;
  pool_.ParallelFor(q.rows() * kv.num_kv_heads, 1, [&](int64_t begin, int64_t end) {
    AttentionScratch scratch;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / kv.num_kv_heads;
      const int kv_head = static_cast<int>(item % kv.num_kv_heads);
      const float* q_row = ReadRow(q, row, scratch.q) + kv_head * group_width;
      CHECK(rows.key_ends.i32()[row] > 0 || rows.slots.i32()[row] < 0, "row {} sees no key", row);
      AttendRow(out, q_row, rows, row, kv_head, spec, scratch);
    }
  });
}

}  // namespace lapidary::cpu
