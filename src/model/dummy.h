// Which numbers a tensor of dummy weights holds. The key of a tensor is the FNV-1a (64 bits) of its
// published name; token_ordering (int64) is the permutation i * f mod n, f the first number >= 5n/8
// prime to n.
#ifndef LAPIDARY_MODEL_DUMMY_H_
#define LAPIDARY_MODEL_DUMMY_H_

#include "model/tensor_spec.h"
#include "ops/dummy_rule.h"

namespace lapidary {

// Keeps a forward pass well conditioned: linears preserve the size of what they read, norms are
// about 1, attention scores have a deviation of about 2 at every head size, logits of about 4.
DummyRule DummyRuleOf(const TensorSpec& spec);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_DUMMY_H_
