// Url: where a server is, as a flag says it.
#ifndef LAPIDARY_APP_CHAT_URL_H_
#define LAPIDARY_APP_CHAT_URL_H_

#include <string>
#include <string_view>

namespace lapidary {

struct Url {
  std::string host, port = "80", path;  // path: before /v1
  std::string authority() const { return host + ":" + port; }
  std::string host_name() const {  // without the brackets of an IPv6 address
    return host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
  }
};

// http://host[:port][/path][/v1]. Throws a StartupError that names the flag.
Url ParseUrl(const char* flag, std::string_view text);

}  // namespace lapidary

#endif  // LAPIDARY_APP_CHAT_URL_H_
