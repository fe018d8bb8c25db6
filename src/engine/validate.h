// The engine's own look at a request: whatever the caller checked, nothing out of range goes on.
#ifndef LAPIDARY_ENGINE_VALIDATE_H_
#define LAPIDARY_ENGINE_VALIDATE_H_

#include "base/result.h"
#include "engine/request.h"

namespace lapidary {

Status ValidateRequest(const Request& request, int vocab_size, int max_model_len);

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_VALIDATE_H_
