// The products of the models, their drafters and pebble: weights [N,K] as the layers stack them, at
// one GPU and as a rank of two holds them. The op cases and the tuner of the products' table go
// through the same list.
#ifndef LAPIDARY_OPS_CASES_MODEL_PRODUCTS_H_
#define LAPIDARY_OPS_CASES_MODEL_PRODUCTS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lapidary {

// What becomes of a product: nothing; gelu_tanh(first half) * second half; gelu_tanh times another
// tensor; f32 logits with a cap; f32 logits.
enum class ProductEnd { kPlain, kGated, kGates, kCapped, kLogits };

struct ModelProduct {
  std::string what;
  int64_t n = 0, k = 0;
  ProductEnd end = ProductEnd::kPlain;
};

// Each shape once, under the name of the first model that has it; "/2" marks a rank of two.
std::vector<ModelProduct> ModelProducts();

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CASES_MODEL_PRODUCTS_H_
