// KvLayout: how many bytes a page of each kind has, where a layer lies in it, and how pages share
// slabs. The one formula: the plan, admission and the arena all ask it. Layout of a page,
// KERNELS.md 3: for each layer with a cache, for each KV head, K [64,Dh] then V [64,Dh], or rows
// of both where K is folded into V.
#ifndef LAPIDARY_KV_LAYOUT_H_
#define LAPIDARY_KV_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "device/tensor.h"

namespace lapidary {

inline constexpr int kPageTokens = 64;
inline constexpr int kMaxSlabPages = 8;

// Page ids carry their kind in the type. Id 0 of each kind is reserved and poisoned; table cells
// without a page hold -1.
enum class FullPage : int32_t { kNone = -1 };
enum class SlidingPage : int32_t { kNone = -1 };

// K folded into V (docs/decisions/0006): V is K before its norm, so the columns of K that RoPE does
// not rotate are those of V times the norm's weight. A token's row is then
//   K: pairs' first halves [F/2], second halves [F/2]; V: the others in their order [Dh-F], pairs'
//   first halves [F/2], second halves [F/2]
// with F = fold_columns, the columns that rotate; 0: K and V are kept apart.
constexpr int KvRowColumns(int head_dim, int fold_columns) {
  return fold_columns > 0 ? head_dim + fold_columns : 2 * head_dim;
}
// The one folded shape that GPU kernels know.
inline constexpr int kGpuFoldHeadDim = 512, kGpuFoldColumns = 128;

// What the layout needs to know about one layer of the model.
struct KvLayerShape {
  bool full = false;
  bool owns_kv = true;
  int num_kv_heads = 0;
  int head_dim = 0;
  int fold_columns = 0;
};

struct KvLayout {
  struct LayerPlace {
    bool full = false;
    int num_kv_heads = 0, head_dim = 0, fold_columns = 0;
    int64_t offset = -1;  // bytes from the page's start; -1: the layer owns no cache
  };

  DType dtype = DType::kF32;
  int64_t full_page_bytes = 0;     // 64 tokens x all full layers with a cache; 0: there is none
  int64_t sliding_page_bytes = 0;  // 64 tokens x all sliding layers with a cache; 0: there is none
  int64_t slab_bytes = 0;
  int full_pages_per_slab = 0;
  int sliding_pages_per_slab = 0;
  int64_t unused_slab_bytes = 0;  // of a slab cut into full pages
  int window = 0;
  std::vector<LayerPlace> layers;

  static KvLayout Make(const std::vector<KvLayerShape>& layers, int window, DType dtype);
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_LAYOUT_H_
