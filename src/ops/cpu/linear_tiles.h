// The tiling shared by the vector kernels. Included only by linear_avx2.cc and linear_avx512.cc,
// inside their anonymous namespace and after their Vec (kVecLanes f32): nothing here may be seen by
// a file with other flags.
//
// A tile is R rows x C columns of 16-lane accumulators. The 16 lanes are kParts vectors that never
// meet before the final tree, so one part at a time passes over a stretch of K: that leaves
// registers for a larger tile. A block of rows stays in the cache while all columns pass over it,
// so that weights come from memory once per block.

constexpr int kParts = 16 / kVecLanes;
constexpr int64_t kRowBlockBytes = 256 * 1024;
constexpr int64_t kStretch = 512;   // of K; a tile's share of it stays in the first-level cache
constexpr int64_t kPrefetch = 512;  // weights ahead; about 1 KiB a column covers memory latency

// The terms after the last whole 16, lane by lane, then the tree. Spelled out so that both files
// agree bit for bit.
float FinishDot(const Vec (&acc)[kParts], const float* x, const uint16_t* w, int64_t k,
                int64_t k_end) {
  if (k == k_end) return SumLanes(acc);
  alignas(64) float lanes[16];
  for (int part = 0; part < kParts; ++part) StoreFloats(lanes + part * kVecLanes, acc[part]);
  for (int l = 0; k + l < k_end; ++l) {
    const uint32_t bits = static_cast<uint32_t>(w[k + l]) << 16;
    float weight;
    __builtin_memcpy(&weight, &bits, sizeof(weight));
    lanes[l] = __builtin_fmaf(x[k + l], weight, lanes[l]);
  }
  Vec sums[kParts];
  for (int part = 0; part < kParts; ++part) sums[part] = LoadFloats(lanes + part * kVecLanes);
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
    for (int part = 0; part < kParts; ++part) acc[c][part] = ZeroLanes();
  const auto step = [&](int64_t k) __attribute__((always_inline)) {
    for (int part = 0; part < kParts; ++part) {
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

// One part of the lanes over one stretch of K, in registers.
template <int R, int C>
void TilePart(const float* const (&x)[R], const uint16_t* const (&w)[C], Vec (&acc)[R][C][kParts],
              int part, int64_t k, int64_t k_end) {
  Vec sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sums[r][c] = acc[r][c][part];
  for (k += part * kVecLanes; k < k_end; k += 16) {
    Vec weights[C];
    for (int c = 0; c < C; ++c) weights[c] = LoadBf16(w[c] + k);
    for (int r = 0; r < R; ++r) {
      const Vec values = LoadFloats(x[r] + k);
      for (int c = 0; c < C; ++c) sums[r][c] = Fma(values, weights[c], sums[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c][part] = sums[r][c];
}

template <int R, int C>
void Tile(const LinearParams& p, int64_t row, int64_t column) {
  const float* x[R];
  const uint16_t* w[C];
  for (int r = 0; r < R; ++r) x[r] = p.x + (row + r) * p.x_stride;
  for (int c = 0; c < C; ++c) w[c] = WeightColumn(p, column + c);
  Vec acc[R][C][kParts];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      for (int part = 0; part < kParts; ++part) acc[r][c][part] = ZeroLanes();
  const int64_t whole = p.k / 16 * 16;
  for (int64_t k = 0; k < whole; k += kStretch) {
    const int64_t k_end = k + kStretch < whole ? k + kStretch : whole;
    for (int part = 0; part < kParts; ++part) TilePart<R, C>(x, w, acc, part, k, k_end);
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      p.y[(row + r) * p.y_stride + column + c] = FinishDot(acc[r][c], x[r], w[c], whole, p.k);
}

// Rows [row, row_end) of one column tile. The rest below 4 rows takes a tile of its own height.
template <int C>
void TileRows(const LinearParams& p, int64_t row, int64_t row_end, int64_t column) {
  for (; row + 4 <= row_end; row += 4) Tile<4, C>(p, row, column);
  if (row_end - row == 3) Tile<3, C>(p, row, column);
  if (row_end - row == 2) Tile<2, C>(p, row, column);
  if (row_end - row == 1) Tile<1, C>(p, row, column);
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
  int64_t block = kRowBlockBytes / (4 * (p.k + 1)) / 4 * 4;
  if (block < 8) block = 8;
  for (int64_t row = 0; row < p.m; row += block) {
    const int64_t row_end = row + block < p.m ? row + block : p.m;
    int64_t column = n_begin;
    for (; column + kColumns <= n_end; column += kColumns)
      TileRows<kColumns>(p, row, row_end, column);
    for (; column < n_end; ++column) TileRows<1>(p, row, row_end, column);
  }
}
