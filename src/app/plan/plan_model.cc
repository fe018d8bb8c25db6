#include "app/plan/plan_model.h"

#include <fmt/core.h>

#include <algorithm>

#include "app/model/find_model.h"

namespace lapidary {

PlannedModel PlanModel(const ModelFlags& model, const MemoryFlags& memory,
                       const EngineOptions& engine, const MemoryBudget& device) {
  PlannedModel planned;
  planned.dir = FindModel(model.model, model.HubDir());
  planned.config = OrThrow(ReadModelConfig(planned.dir));
  if (planned.config.is_drafter)
    throw StartupError(
        fmt::format("{} is an assistant; give the model it belongs to", planned.dir.string()));
  planned.memory = PlanMemory(planned.config, memory, engine, device);
  return planned;
}

void NeedContext(const MemoryPlan& plan, int max_model_len) {
  const int shortest = std::max(max_model_len, 2);
  if (plan.context >= shortest) return;
  throw StartupError(fmt::format(
      "one request of {} tokens does not fit into {} GiB of KV cache ({}); use a shorter "
      "--max-model-len or more memory",
      shortest, GiB(plan.kv_bytes), plan.kv_reason));
}

}  // namespace lapidary
