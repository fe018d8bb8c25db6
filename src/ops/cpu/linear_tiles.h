// The tiling shared by the vector kernels. Included only by linear_avx2.cc and linear_avx512.cc,
// inside their anonymous namespace and after their V16 (sixteen f32 lanes): nothing here may be
// seen by a file with other flags.
//
// A tile is R rows x C columns of 16-lane accumulators. A block of rows stays in the cache while
// all columns pass over it, so that weights come from memory once per block.

constexpr int64_t kRowBlockBytes = 256 * 1024;

// The terms after the last whole 16, lane by lane, then the tree. Spelled out so that both files
// agree bit for bit.
float FinishDot(const V16& acc, const float* x, const uint16_t* w, int64_t k, int64_t k_end) {
  if (k == k_end) return SumLanes(acc);
  alignas(64) float lanes[16];
  StoreLanes(lanes, acc);
  for (int l = 0; k + l < k_end; ++l) {
    const uint32_t bits = static_cast<uint32_t>(w[k + l]) << 16;
    float weight;
    __builtin_memcpy(&weight, &bits, sizeof(weight));
    lanes[l] = __builtin_fmaf(x[k + l], weight, lanes[l]);
  }
  return SumLanes(LoadFloats(lanes));
}

template <int R, int C>
void Tile(const LinearParams& p, int64_t row, int64_t column) {
  const float* x[R];
  const uint16_t* w[C];
  for (int r = 0; r < R; ++r) x[r] = p.x + (row + r) * p.x_stride;
  for (int c = 0; c < C; ++c)
    w[c] = reinterpret_cast<const uint16_t*>(p.w) + (column + c) * p.w_stride;
  V16 acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = ZeroLanes();
  int64_t k = 0;
  for (; k + 16 <= p.k; k += 16) {
    V16 weights[C];
    for (int c = 0; c < C; ++c) {
      if (R == 1) __builtin_prefetch(w[c] + k + 512);
      weights[c] = LoadBf16(w[c] + k);
    }
    for (int r = 0; r < R; ++r) {
      const V16 values = LoadFloats(x[r] + k);
      for (int c = 0; c < C; ++c) acc[r][c] = Fma(values, weights[c], acc[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      p.y[(row + r) * p.y_stride + column + c] = FinishDot(acc[r][c], x[r], w[c], k, p.k);
}

// Rows [row, row_end) of one column tile.
template <int R, int C>
void TileRows(const LinearParams& p, int64_t row, int64_t row_end, int64_t column) {
  for (; row + R <= row_end; row += R) Tile<R, C>(p, row, column);
  for (; row < row_end; ++row) Tile<1, C>(p, row, column);
}

template <int R, int C, int kSingleRowC>
void LinearTiled(const LinearParams& p, int64_t n_begin, int64_t n_end) {
  if (p.m == 1) {
    int64_t column = n_begin;
    for (; column + kSingleRowC <= n_end; column += kSingleRowC) Tile<1, kSingleRowC>(p, 0, column);
    for (; column < n_end; ++column) Tile<1, 1>(p, 0, column);
    return;
  }
  int64_t block = kRowBlockBytes / (4 * (p.k + 1));
  block = block < 2 * R ? 2 * R : block / R * R;
  for (int64_t row = 0; row < p.m; row += block) {
    const int64_t row_end = row + block < p.m ? row + block : p.m;
    int64_t column = n_begin;
    for (; column + C <= n_end; column += C) TileRows<R, C>(p, row, row_end, column);
    for (; column < n_end; ++column) TileRows<R, 1>(p, row, row_end, column);
  }
}
