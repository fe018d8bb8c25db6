#include "text/stop_matcher.h"

#include <queue>

namespace lapidary {

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool keep_stop)
    : nodes_(1), keep_stop_(keep_stop) {
  for (const std::string& stop : stops) {
    lengths_.push_back(stop.size());
    if (stop.empty()) continue;
    int32_t node = 0;
    for (const char byte : stop) {
      const auto found = nodes_[static_cast<size_t>(node)].next.find(byte);
      if (found != nodes_[static_cast<size_t>(node)].next.end()) {
        node = found->second;
        continue;
      }
      const auto added = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({{}, 0, nodes_[static_cast<size_t>(node)].depth + 1, std::nullopt});
      nodes_[static_cast<size_t>(node)].next[byte] = added;
      node = added;
    }
    if (!nodes_[static_cast<size_t>(node)].stop)
      nodes_[static_cast<size_t>(node)].stop = lengths_.size() - 1;
  }
  std::queue<int32_t> queue;
  for (const auto& [byte, child] : nodes_[0].next) queue.push(child);
  while (!queue.empty()) {
    const int32_t node = queue.front();
    queue.pop();
    for (const auto& [byte, child] : nodes_[static_cast<size_t>(node)].next) {
      Node& target = nodes_[static_cast<size_t>(child)];
      target.fail = Step(nodes_[static_cast<size_t>(node)].fail, byte);
      if (!target.stop) target.stop = nodes_[static_cast<size_t>(target.fail)].stop;
      queue.push(child);
    }
  }
}

int32_t StopMatcher::Step(int32_t node, char byte) const {
  for (;; node = nodes_[static_cast<size_t>(node)].fail) {
    const Node& at = nodes_[static_cast<size_t>(node)];
    if (const auto found = at.next.find(byte); found != at.next.end()) return found->second;
    if (node == 0) return 0;
  }
}

StopMatcher::Output StopMatcher::Push(std::string_view text) {
  Output output;
  if (done_) return output;
  for (const char byte : text) {
    held_ += byte;
    state_ = Step(state_, byte);
    const Node& node = nodes_[static_cast<size_t>(state_)];
    if (node.stop) {
      if (!keep_stop_) held_.resize(held_.size() - lengths_[*node.stop]);
      output.text = std::move(held_);
      output.matched = node.stop;
      held_.clear();
      done_ = true;
      return output;
    }
  }
  const auto keep = static_cast<size_t>(nodes_[static_cast<size_t>(state_)].depth);
  output.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return output;
}

std::string StopMatcher::Finish() {
  done_ = true;
  return std::move(held_);
}

}  // namespace lapidary
