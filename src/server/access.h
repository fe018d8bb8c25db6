// Access: who may ask for what. Immutable; thread-safe.
#ifndef LAPIDARY_SERVER_ACCESS_H_
#define LAPIDARY_SERVER_ACCESS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "server/api_options.h"
#include "server/http/exchange.h"

namespace lapidary {

enum class RouteAccess : uint8_t { kOpen, kMetrics, kKey, kAdmin };

class Access {
 public:
  explicit Access(const ApiOptions& options);
  // The refusal of a request that may not use such a route, or nothing.
  std::optional<HttpResponse> Refuse(const HttpRequest& request, RouteAccess access) const;
  bool IsAdmin(const HttpRequest& request) const;
  // The caller's own: nobody without this key and the secret drawn at start can guess it.
  CacheSalt SaltOf(const HttpRequest& request) const;

 private:
  bool HasKey(const HttpRequest& request) const;

  std::vector<std::string> keys_;
  std::string admin_key_;
  bool admin_open_, metrics_need_key_, is_loopback_;
  std::string secret_;
};

// An error in the API's shape; its type follows the status.
HttpResponse Refusal(int status, const char* message, const char* code);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_ACCESS_H_
