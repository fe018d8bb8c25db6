// ApiOptions: what the server is told at start.
#ifndef LAPIDARY_SERVER_API_OPTIONS_H_
#define LAPIDARY_SERVER_API_OPTIONS_H_

#include <string>
#include <vector>

#include "server/http/http_server.h"

namespace lapidary {

struct ApiOptions {
  std::string host = "127.0.0.1";
  int port = 8000;
  int health_port = -1;  // a second listener for the health routes, with its own thread; -1: none
  int num_threads = 2;
  HttpLimits limits;
  std::vector<std::string> served_names = {"pebble"};
  bool serves_any_name = false;
  std::vector<std::string> api_keys;
  std::string admin_api_key;  // empty: admin routes need an API key, or a loopback peer if none
  bool admin_open = false;    // admin routes need nothing
  bool metrics_need_key = false;
  std::string profile_dir;  // of traces; empty: below the system's temporary folder
  std::string version = "0";
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_API_OPTIONS_H_
