// Damage done to a good checkpoint folder.
#ifndef LAPIDARY_TESTS_CHECKPOINTS_MUTATIONS_H_
#define LAPIDARY_TESTS_CHECKPOINTS_MUTATIONS_H_

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "checkpoints/tiny_checkpoint.h"

namespace lapidary {

using Random = std::mt19937_64;

// What must be said of the damage.
struct Verdict {
  bool must_refuse = false;
  std::string names;  // the refusal contains this: a tensor or a field
};

struct Mutation {
  std::string name;
  std::function<Verdict(FolderFiles& files, Random& random)> apply;
};

const std::vector<Mutation>& Mutations();

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CHECKPOINTS_MUTATIONS_H_
