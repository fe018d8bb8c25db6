// LiveRequests: the replies that are being made, to count them and to abort them by id.
#ifndef LAPIDARY_SERVER_LIVE_REQUESTS_H_
#define LAPIDARY_SERVER_LIVE_REQUESTS_H_

#include <atomic>
#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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
    place->reply = shared;
    return shared;
  }
  // Of this owner and id; of all if both are null. Returns how many.
  int Abort(const std::string* id, const CacheSalt* owner) {
    const std::vector<std::shared_ptr<Reply>> replies = Find(id, owner);
    for (const auto& reply : replies) reply->Abort();
    return static_cast<int>(replies.size());
  }
  // All, as Reply::End. Returns when each was told, or after so long.
  void EndAll(const HttpResponse& error, std::chrono::milliseconds most) {
    const std::vector<std::shared_ptr<Reply>> replies = Find(nullptr, nullptr);
    const auto num_told = std::make_shared<std::atomic<size_t>>(0);
    for (const auto& reply : replies) reply->End(error, [num_told] { ++*num_told; });
    const auto end = std::chrono::steady_clock::now() + most;
    while (*num_told < replies.size() && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  int size() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(entries_.size());
  }

 private:
  struct Entry {
    std::string id;
    CacheSalt owner;
    std::weak_ptr<Reply> reply;
  };
  std::vector<std::shared_ptr<Reply>> Find(const std::string* id, const CacheSalt* owner) const {
    std::vector<std::shared_ptr<Reply>> replies;
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_)
      if ((id == nullptr || entry.id == *id) && (owner == nullptr || entry.owner == *owner))
        if (auto reply = entry.reply.lock()) replies.push_back(std::move(reply));
    return replies;
  }
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // guarded by mutex_
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_LIVE_REQUESTS_H_
