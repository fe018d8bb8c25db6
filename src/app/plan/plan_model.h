// PlanModel: the plan of the model that the flags name, before anything but its config.json is
// read.
#ifndef LAPIDARY_APP_PLAN_PLAN_MODEL_H_
#define LAPIDARY_APP_PLAN_PLAN_MODEL_H_

#include <filesystem>

#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"

namespace lapidary {

struct PlannedModel {
  std::filesystem::path dir;
  ModelConfig config;
  MemoryPlan memory;
};

// Throws StartupError; an assistant is no model to plan for.
PlannedModel PlanModel(const ModelFlags& model, const MemoryFlags& memory,
                       const EngineOptions& engine, const MemoryBudget& device);

// Throws StartupError where the KV cache holds no request of this length; 0: of any length.
void NeedContext(const MemoryPlan& plan, int max_model_len);

}  // namespace lapidary

#endif  // LAPIDARY_APP_PLAN_PLAN_MODEL_H_
