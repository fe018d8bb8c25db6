// LiveRequests: the replies that are being made, to count them and to abort them by id.
#ifndef LAPIDARY_SERVER_LIVE_REQUESTS_H_
#define LAPIDARY_SERVER_LIVE_REQUESTS_H_

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "engine/request.h"
#include "server/openai/reply.h"

namespace lapidary {

// Thread-safe; lives on until the last reply is gone.
class LiveRequests : public std::enable_shared_from_this<LiveRequests> {
 public:
  // The reply, counted until its last owner lets go of it; null if this owner has one of this id.
  std::shared_ptr<Reply> Add(std::unique_ptr<Reply> reply, std::string id, const CacheSalt& owner) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_)
      if (entry.id == id && entry.owner == owner) return nullptr;
    const auto place = entries_.insert(entries_.end(), {std::move(id), owner, {}});
    std::shared_ptr<Reply> shared(reply.release(), [self = shared_from_this(), place](Reply* done) {
      delete done;
      const std::lock_guard relock(self->mutex_);
      self->entries_.erase(place);
    });
    place->abort = [weak = std::weak_ptr<Reply>(shared)] {
      if (const auto live = weak.lock()) live->Abort();
    };
    return shared;
  }
  // Of this owner and id; of all if both are null. Returns how many.
  int Abort(const std::string* id, const CacheSalt* owner) {
    std::list<std::function<void()>> aborts;
    {
      const std::lock_guard lock(mutex_);
      for (const Entry& entry : entries_)
        if ((id == nullptr || entry.id == *id) && (owner == nullptr || entry.owner == *owner))
          aborts.push_back(entry.abort);
    }
    for (const auto& abort : aborts) abort();
    return static_cast<int>(aborts.size());
  }
  int size() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(entries_.size());
  }

 private:
  struct Entry {
    std::string id;
    CacheSalt owner;
    std::function<void()> abort;
  };
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // guarded by mutex_
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_LIVE_REQUESTS_H_
