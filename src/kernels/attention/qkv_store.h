// QkvNormRopeStore: q and k normed and rotated, v normed, K and V written to pages or scratch, in
// one launch; and the copy of a window's pages to scratch that goes before it.
#ifndef LAPIDARY_KERNELS_ATTENTION_QKV_STORE_H_
#define LAPIDARY_KERNELS_ATTENTION_QKV_STORE_H_

#include "kernels/attention/kv_view.h"
#include "kernels/common/launch.h"

namespace lapidary::kernels {

// Rows of qkv hold the Q heads (num_heads may be 0), then K heads and V heads when has_kv; with
// k_eq_v V is K before its norm and the V columns are not read. q is rewritten in place; k and v go
// to the cache only. Rounds to bf16 after the norm and after RoPE.
struct QkvStoreParams {
  Bf16* qkv = nullptr;  // [T,(H+2Hkv)*Dh]
  int64_t stride = 0;
  int num_heads = 0;
  bool has_kv = true, k_eq_v = false;
  const Bf16* q_norm = nullptr;  // [Dh]
  const Bf16* k_norm = nullptr;  // [Dh]; of a folded cache q takes it too
  const float* frequencies =
      nullptr;  // [num_rotated]; pairs (i, i + Dh/2) from num_rotated on do not rotate
  int num_rotated = 0;
  float eps = 0;
  KvView kv;
  RowsView rows;
  // Sliding layers: K and V of a row with chunks[t] >= 0 go to scratch, and to a page only where
  // the table has one.
  const int32_t* chunks = nullptr;  // [T] or null
  KvView scratch;
  ChunkPlace places[kMaxChunks];
};
void LaunchQkvStore(const QkvStoreParams& params, Stream stream);

// Copies whole pages of one layer, all heads, from the cache to scratch.
struct PageCopy {
  int32_t from = 0, to = 0;
};
struct GatherWindowParams {
  KvView kv, scratch;
  PageCopy copies[kMaxChunks];
  int num_copies = 0;
};
void LaunchGatherWindow(const GatherWindowParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_QKV_STORE_H_
