#include "server/access.h"

#include <random>

#include "base/sha256.h"
#include "server/openai/completion.h"

namespace lapidary {
namespace {

std::string_view HostName(std::string_view authority) {
  if (authority.starts_with('[')) return authority.substr(0, authority.find(']') + 1);
  return authority.substr(0, authority.find(':'));
}

bool IsLoopbackName(std::string_view name) {
  return name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == "::1";
}

// Looks at every byte whatever the first difference.
bool EqualInConstantTime(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    difference |=
        static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^
                              static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]));
  return difference == 0;
}

std::string_view KeyOf(const HttpRequest& request) {
  const std::string_view bearer = request.header("authorization");
  return bearer.starts_with("Bearer ") ? bearer.substr(7) : request.header("x-api-key");
}

std::string RandomBytes(size_t count) {
  std::random_device device;
  std::string bytes;
  while (bytes.size() < count) bytes += static_cast<char>(device() & 0xff);
  return bytes;
}

}  // namespace

HttpResponse Refusal(int status, const char* message, const char* code) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 403 ? "permission_error"
                     : status == 404 ? "not_found_error"
                     : status == 503 ? "overloaded_error"
                                     : "invalid_request_error";
  return ErrorResponse(status, Error{message, "", code}, type);
}

Access::Access(const ApiOptions& options)
    : keys_(options.api_keys),
      admin_key_(options.admin_api_key),
      admin_open_(options.admin_open),
      metrics_need_key_(options.metrics_need_key),
      is_loopback_(IsLoopbackName(options.host)),
      secret_(RandomBytes(32)) {}

bool Access::HasKey(const HttpRequest& request) const {
  const std::string_view given = KeyOf(request);
  bool found = keys_.empty();
  for (const std::string& key : keys_) found |= EqualInConstantTime(given, key);
  return found;
}

bool Access::IsAdmin(const HttpRequest& request) const {
  if (admin_open_) return true;
  if (!admin_key_.empty()) return EqualInConstantTime(KeyOf(request), admin_key_);
  return keys_.empty() ? request.from_loopback : HasKey(request);
}

std::optional<HttpResponse> Access::Refuse(const HttpRequest& request, RouteAccess access) const {
  const std::string_view host = request.header("host"), origin = request.header("origin");
  if (is_loopback_ && !host.empty() && !IsLoopbackName(HostName(host)))
    return Refusal(403, "This Host is not served here.", "host_not_allowed");
  const size_t scheme = origin.find("://");
  if (!origin.empty() && (scheme == std::string_view::npos || origin.substr(scheme + 3) != host))
    return Refusal(403, "Requests of other web pages are refused.", "origin");
  if (access == RouteAccess::kAdmin) {
    if (IsAdmin(request)) return {};
    return keys_.empty() && admin_key_.empty()
               ? Refusal(403, "This route is for the machine itself.", "admin_only")
               : Refusal(401, "This route needs the admin's API key.", "invalid_api_key");
  }
  const bool is_open =
      access == RouteAccess::kOpen || (access == RouteAccess::kMetrics && !metrics_need_key_);
  if (is_open || HasKey(request)) return {};
  return Refusal(401, "The API key is missing or wrong.", "invalid_api_key");
}

CacheSalt Access::SaltOf(const HttpRequest& request) const {
  return HmacSha256(secret_, KeyOf(request));
}

}  // namespace lapidary
