// The tiling shared by the vector kernels. Included only by linear_avx2.cc and linear_avx512.cc,
// inside their anonymous namespace and after their Vec (kVecLanes f32): nothing here may be seen by
// a file with other flags.
//
// A tile is R rows x C columns of 16-lane accumulators. The 16 lanes are kParts vectors that never
// meet before the final tree, so one part at a time passes over a stretch of K: that leaves
// registers for a larger tile. A panel, kMaxBlockRows rows of a stretch of K, stays in the
// second-level cache while a block of columns passes over it; between panels the lanes of the
// block's tiles wait in memory. So weights come from memory once per block of rows, at any K.

constexpr int kParts = 16 / kVecLanes;
constexpr int64_t kPanelBytes = 128 * 1024;
constexpr int64_t kMaxBlockRows = 64, kBlockTiles = 8;  // tiles of columns in a block
constexpr int64_t kStretch = 512;   // of K; a tile's share of it stays in the first-level cache
constexpr int64_t kPrefetch = 512;  // weights ahead; about 1 KiB a column covers memory latency

// The terms after the last whole 16, lane by lane, then the tree. Spelled out so that both files
// agree bit for bit.
float FinishDot(const Vec (&acc)[kParts], const float* x, const uint16_t* w, int64_t k,
                int64_t k_end) {
  if (k == k_end) return SumLanes(acc);
  alignas(64) float lanes[16];
  for (int64_t part = 0; part < kParts; ++part) StoreFloats(lanes + part * kVecLanes, acc[part]);
  for (int l = 0; k + l < k_end; ++l) {
    const uint32_t bits = static_cast<uint32_t>(w[k + l]) << 16;
    float weight;
    __builtin_memcpy(&weight, &bits, sizeof(weight));
    lanes[l] = __builtin_fmaf(x[k + l], weight, lanes[l]);
  }
  Vec sums[kParts];
  for (int64_t part = 0; part < kParts; ++part) sums[part] = LoadFloats(lanes + part * kVecLanes);
  return SumLanes(sums);
}

const uint16_t* WeightColumn(const LinearParams& p, int64_t column) {
  return reinterpret_cast<const uint16_t*>(p.w) + column * p.w_stride;
}

// One row: all parts at once, because each weight is read once and memory is the limit. Prefetches
// along the columns and, near their ends, the starts of the next C columns.
template <int C>
void RowTile(const LinearParams& p, int64_t column) {
  const uint16_t* w[C];
  for (int c = 0; c < C; ++c) w[c] = WeightColumn(p, column + c);
  Vec acc[C][kParts];
  for (int c = 0; c < C; ++c)
    for (int64_t part = 0; part < kParts; ++part) acc[c][part] = ZeroLanes();
  const auto step = [&](int64_t k) __attribute__((always_inline)) {
    for (int64_t part = 0; part < kParts; ++part) {
      const Vec values = LoadFloats(p.x + k + part * kVecLanes);
      for (int c = 0; c < C; ++c)
        acc[c][part] = Fma(values, LoadBf16(w[c] + k + part * kVecLanes), acc[c][part]);
    }
  };
  const int64_t to_next = C * p.w_stride - p.k;
  int64_t k = 0;
  for (; k + 32 <= p.k; k += 32) {
    const int64_t ahead = k + kPrefetch + (k + kPrefetch < p.k ? 0 : to_next);
    for (int c = 0; c < C; ++c) __builtin_prefetch(w[c] + ahead);
    step(k);
    step(k + 16);
  }
  if (k + 16 <= p.k) {
    step(k);
    k += 16;
  }
  for (int c = 0; c < C; ++c) p.y[column + c] = FinishDot(acc[c], p.x, w[c], k, p.k);
}

// One part of the lanes over one stretch of K, in registers; the first stretch begins with zeros.
template <int R, int C>
void TilePart(const float* const (&x)[R], const uint16_t* const (&w)[C], float* lanes, int64_t k,
              int64_t k_end) {
  Vec sums[R][C];
  const bool is_first = k < 16;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t c = 0; c < C; ++c)
      sums[r][c] = is_first ? ZeroLanes() : LoadFloats(lanes + (r * C + c) * 16);
  for (; k < k_end; k += 16) {
    Vec weights[C];
    for (int c = 0; c < C; ++c) weights[c] = LoadBf16(w[c] + k);
    for (int r = 0; r < R; ++r) {
      const Vec values = LoadFloats(x[r] + k);
      for (int c = 0; c < C; ++c) sums[r][c] = Fma(values, weights[c], sums[r][c]);
    }
  }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t c = 0; c < C; ++c) StoreFloats(lanes + (r * C + c) * 16, sums[r][c]);
}

// A stretch [begin, end) of the whole sixteens of K.
struct Panel {
  int64_t begin, end, whole;
};

// One tile over one panel: its lanes [R,C,16] end as outputs.
template <int R, int C>
void Tile(const LinearParams& p, int64_t row, int64_t column, const Panel& panel, float* lanes) {
  const float* x[R];
  const uint16_t* w[C];
  for (int r = 0; r < R; ++r) x[r] = p.x + (row + r) * p.x_stride;
  for (int c = 0; c < C; ++c) w[c] = WeightColumn(p, column + c);
  if (panel.whole == 0) __builtin_memset(lanes, 0, sizeof(float) * R * C * 16);
  for (int64_t k = panel.begin; k < panel.end; k += kStretch) {
    const int64_t k_end = k + kStretch < panel.end ? k + kStretch : panel.end;
    for (int64_t lane = 0; lane < 16; lane += kVecLanes)
      TilePart<R, C>(x, w, lanes + lane, k + lane, k_end);
  }
  if (panel.end != panel.whole) return;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t c = 0; c < C; ++c) {
      Vec sums[kParts];
      for (int64_t part = 0; part < kParts; ++part)
        sums[part] = LoadFloats(lanes + (r * C + c) * 16 + part * kVecLanes);
      p.y[(row + r) * p.y_stride + column + c] = FinishDot(sums, x[r], w[c], panel.whole, p.k);
    }
}

// R rows of the columns [column, column_end) over one panel. Returns the lanes behind theirs.
template <int R, int kColumns>
float* TileColumns(const LinearParams& p, int64_t row, int64_t column, int64_t column_end,
                   const Panel& panel, float* lanes) {
  for (; column + kColumns <= column_end; column += kColumns, lanes += int64_t{R} * kColumns * 16)
    Tile<R, kColumns>(p, row, column, panel, lanes);
  for (; column < column_end; ++column, lanes += int64_t{R} * 16)
    Tile<R, 1>(p, row, column, panel, lanes);
  return lanes;
}

// Rows [row, row_end) of the columns [column, column_end), at most kBlockTiles tiles. The rest
// below 4 rows takes tiles of its own height; 5 and 6 rows, a decode row with its drafts, take one
// narrower tile instead of two passes over the weights.
template <int kColumns>
void Block(const LinearParams& p, int64_t row, int64_t row_end, int64_t column,
           int64_t column_end) {
  alignas(64) float all_lanes[kMaxBlockRows * kBlockTiles * kColumns * 16];
  const int64_t whole = p.k / 16 * 16;
  const int64_t panel_k = kPanelBytes / (4 * (row_end - row)) / kStretch * kStretch;
  int64_t k = 0;
  do {
    const Panel panel = {k, k + panel_k < whole ? k + panel_k : whole, whole};
    float* lanes = all_lanes;
    int64_t at = row;
    if (row_end - row == 5) {
      TileColumns<5, 2>(p, at, column, column_end, panel, lanes);
      at = row_end;
    } else if (row_end - row == 6) {
      TileColumns<6, 2>(p, at, column, column_end, panel, lanes);
      at = row_end;
    }
    for (; at + 4 <= row_end; at += 4)
      lanes = TileColumns<4, kColumns>(p, at, column, column_end, panel, lanes);
    if (row_end - at == 3) TileColumns<3, kColumns>(p, at, column, column_end, panel, lanes);
    if (row_end - at == 2) TileColumns<2, kColumns>(p, at, column, column_end, panel, lanes);
    if (row_end - at == 1) TileColumns<1, kColumns>(p, at, column, column_end, panel, lanes);
    k = panel.end;
  } while (k < whole);
}

// kColumns a tile for many rows, kRowColumns for one.
template <int kColumns, int kRowColumns>
void LinearTiled(const LinearParams& p, int64_t n_begin, int64_t n_end) {
  if (p.m == 1) {
    int64_t column = n_begin;
    for (; column + kRowColumns <= n_end; column += kRowColumns) RowTile<kRowColumns>(p, column);
    for (; column < n_end; ++column) RowTile<1>(p, column);
    return;
  }
  constexpr int64_t kBlockColumns = kBlockTiles * kColumns;
  for (int64_t row = 0; row < p.m; row += kMaxBlockRows) {
    const int64_t row_end = row + kMaxBlockRows < p.m ? row + kMaxBlockRows : p.m;
    for (int64_t column = n_begin; column < n_end; column += kBlockColumns)
      Block<kColumns>(p, row, row_end, column,
                      column + kBlockColumns < n_end ? column + kBlockColumns : n_end);
  }
}
