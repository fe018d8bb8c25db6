#include "ops/cases/model_products.h"

#include <algorithm>
#include <initializer_list>

namespace lapidary {
namespace {

// What two ranks divide: the rows of a weight, its columns, or nothing.
enum class Half { kNone, kRows, kColumns };

struct Entry {
  const char* what;
  int64_t n, k;
  Half half = Half::kNone;
  ProductEnd end = ProductEnd::kPlain;
};

constexpr int64_t kVocabulary = 262144;

// KERNELS.md 2, and the drafters' configurations. E2B has one KV head and is not divided; of
// 26B-A4B the dense part is.
constexpr Entry kEntries[] = {
    {"31B_qkv", 16384, 5376, Half::kRows},
    {"31B_qkv_full", 18432, 5376, Half::kRows},
    {"31B_o", 5376, 8192, Half::kColumns},
    {"31B_o_full", 5376, 16384, Half::kColumns},
    {"31B_gate_up", 43008, 5376, Half::kRows, ProductEnd::kGated},
    {"31B_down", 5376, 21504, Half::kColumns},
    {"31B_head", kVocabulary, 5376, Half::kRows, ProductEnd::kCapped},
    {"26B_qkv", 8192, 2816, Half::kRows},
    {"26B_qkv_full", 9216, 2816, Half::kRows},
    {"26B_o", 2816, 4096, Half::kColumns},
    {"26B_o_full", 2816, 8192, Half::kColumns},
    {"26B_gate_up", 4224, 2816, Half::kRows, ProductEnd::kGated},
    {"26B_down", 2816, 2112, Half::kColumns},
    {"26B_head", kVocabulary, 2816, Half::kRows, ProductEnd::kCapped},
    {"E4B_qkv", 3072, 2560, Half::kRows},
    {"E4B_qkv_full", 6144, 2560, Half::kRows},
    {"E4B_q", 2048, 2560, Half::kRows},
    {"E4B_q_full", 4096, 2560, Half::kRows},
    {"E4B_o", 2560, 2048, Half::kColumns},
    {"E4B_o_full", 2560, 4096, Half::kColumns},
    {"E4B_gate_up", 20480, 2560, Half::kRows, ProductEnd::kGated},
    {"E4B_down", 2560, 10240, Half::kColumns},
    {"E4B_ple_context", 10752, 2560},
    {"E4B_ple_gate", 256, 2560, Half::kNone, ProductEnd::kGates},
    {"E4B_ple_up", 2560, 256},
    {"E4B_head", kVocabulary, 2560, Half::kRows, ProductEnd::kCapped},
    {"E2B_qkv", 2560, 1536},
    {"E2B_qkv_full", 5120, 1536},
    {"E2B_q", 2048, 1536},
    {"E2B_q_full", 4096, 1536},
    {"E2B_o", 1536, 2048},
    {"E2B_o_full", 1536, 4096},
    {"E2B_gate_up", 12288, 1536, Half::kNone, ProductEnd::kGated},
    {"E2B_gate_up_wide", 24576, 1536, Half::kNone, ProductEnd::kGated},
    {"E2B_down", 1536, 6144},
    {"E2B_down_wide", 1536, 12288},
    {"E2B_ple_context", 8960, 1536},
    {"E2B_ple_gate", 256, 1536, Half::kNone, ProductEnd::kGates},
    {"E2B_ple_up", 1536, 256},
    {"E2B_head", kVocabulary, 1536, Half::kNone, ProductEnd::kCapped},
    {"31B_draft_in", 1024, 10752},
    {"31B_draft_q", 8192, 1024, Half::kRows},
    {"31B_draft_q_full", 16384, 1024, Half::kRows},
    {"31B_draft_o", 1024, 8192, Half::kColumns},
    {"31B_draft_o_full", 1024, 16384, Half::kColumns},
    {"31B_draft_gate_up", 16384, 1024, Half::kRows, ProductEnd::kGated},
    {"31B_draft_down", 1024, 8192, Half::kColumns},
    {"31B_draft_out", 5376, 1024},
    {"31B_draft_head", kVocabulary, 1024, Half::kRows, ProductEnd::kLogits},
    {"26B_draft_in", 1024, 5632},
    {"26B_draft_q", 4096, 1024, Half::kRows},
    {"26B_draft_q_full", 8192, 1024, Half::kRows},
    {"26B_draft_o", 1024, 4096, Half::kColumns},
    {"26B_draft_out", 2816, 1024},
    {"E4B_draft_in", 256, 5120},
    {"E2B_draft_in", 256, 3072},
    {"E2B_draft_q", 1024, 256},
    {"E2B_draft_q_full", 2048, 256},
    {"E2B_draft_o", 256, 1024},
    {"E2B_draft_o_full", 256, 2048},
    {"E2B_draft_gate_up", 4096, 256, Half::kNone, ProductEnd::kGated},
    {"E2B_draft_down", 256, 2048},
    {"E2B_draft_out", 1536, 256},
    {"E4B_draft_out", 2560, 256},
    {"pebble_qkv", 1024, 256},
    {"pebble_gate_up", 768, 256, Half::kNone, ProductEnd::kGated},
    {"pebble_down", 256, 384},
    {"pebble_head", 1024, 256, Half::kNone, ProductEnd::kCapped},
};

}  // namespace

std::vector<ModelProduct> ModelProducts() {
  std::vector<ModelProduct> products;
  const auto add = [&](const ModelProduct& product) {
    const bool known = std::ranges::any_of(products, [&](const ModelProduct& p) {
      return p.n == product.n && p.k == product.k && p.end == product.end;
    });
    if (!known) products.push_back(product);
  };
  for (const Entry& e : kEntries) add({e.what, e.n, e.k, e.end});
  for (const Entry& e : kEntries)
    if (e.half != Half::kNone)
      add({std::string(e.what) + "/2", e.half == Half::kRows ? e.n / 2 : e.n,
           e.half == Half::kColumns ? e.k / 2 : e.k, e.end});
  return products;
}

}  // namespace lapidary
