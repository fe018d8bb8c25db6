// TokenEngine: what the server needs of an engine, so that its tests can script one.
#ifndef LAPIDARY_SERVER_TOKEN_ENGINE_H_
#define LAPIDARY_SERVER_TOKEN_ENGINE_H_

#include <cstdint>

#include "base/result.h"
#include "engine/engine.h"

namespace lapidary {

// Which requests go first: in order of arrival, or by their field `priority`.
enum class PriorityOrder : uint8_t { kNone, kLowFirst, kHighFirst };

class TokenEngine {
 public:
  virtual ~TokenEngine() = default;
  // As Engine::Submit: thread-safe; the sink is called on the engine's thread.
  virtual Status Submit(Request request, TokenSink sink) = 0;
  virtual void Cancel(uint64_t request_id) = 0;
  virtual void CancelChoice(uint64_t request_id, int choice) = 0;
  virtual int vocab_size() const = 0;
  virtual int max_model_len() const = 0;
  // Drops cached pages that nobody uses; waits for the step that runs. Returns how many.
  virtual int64_t FlushCache() = 0;
  virtual EngineStats stats() const = 0;
  // Whole seconds after which a request that was refused for a full queue may come again.
  virtual int retry_after_s() const { return 1; }
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_TOKEN_ENGINE_H_
