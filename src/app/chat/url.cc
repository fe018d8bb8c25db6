#include "app/chat/url.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "base/result.h"

namespace lapidary {

Url ParseUrl(const char* flag, std::string_view text) {
  const std::string whole(text);
  if (text.starts_with("https://"))
    throw StartupError(
        fmt::format("{}: https is not spoken; put a TLS proxy in front, or use http://", flag));
  if (!text.starts_with("http://"))
    throw StartupError(
        fmt::format("{} {} does not begin with http://, as in http://127.0.0.1:8000", flag, whole));
  text.remove_prefix(7);
  Url url;
  const size_t slash = std::min(text.find('/'), text.size());
  std::string_view authority = text.substr(0, slash);
  url.path = text.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  if (url.path.ends_with("/v1")) url.path.resize(url.path.size() - 3);
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    url.port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
  }
  url.host = authority;
  int port = 0;
  const auto [end, code] =
      std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
  if (url.host.empty() || code != std::errc() || end != url.port.data() + url.port.size() ||
      port < 1 || port > 65535)
    throw StartupError(
        fmt::format("{} {} is no address, such as http://127.0.0.1:8000", flag, whole));
  return url;
}

}  // namespace lapidary
