// HttpServer: HTTP/1.1 over Boost.Beast on a few io threads; no thread per connection or stream.
#ifndef LAPIDARY_SERVER_HTTP_HTTP_SERVER_H_
#define LAPIDARY_SERVER_HTTP_HTTP_SERVER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "server/http/exchange.h"

namespace lapidary {

// RELIABILITY.md section 6.
struct HttpLimits {
  uint32_t header_bytes = 16 * 1024;
  int header_fields = 100;
  size_t uri_bytes = 8 * 1024;
  uint64_t body_bytes = 20ull << 20;
  std::chrono::milliseconds header_deadline{10'000};
  std::chrono::milliseconds body_grace{10'000};  // after that the body must come at body_rate
  double body_rate = 1024;                       // bytes a second
  std::chrono::milliseconds idle{75'000};
  std::chrono::milliseconds stalled_write{30'000};
  std::chrono::milliseconds keepalive_line{10'000};
  size_t stream_buffer = 256 * 1024;
  int connections = 10'000;
};

class HttpServer {
 public:
  // Binds at once; throws StartupError with one sentence when host or port cannot be had. Port 0
  // takes a free one.
  HttpServer(const std::string& host, int port, int num_threads, const HttpLimits& limits,
             HttpHandler handler, HttpErrorBody error_body);
  ~HttpServer();  // closes the listener and all connections, joins the threads
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  int num_connections() const;
  // No new connections from now on; open ones live on.
  void StopAccepting();
  // Ends the threads; connections stay as they are until the server is destroyed.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_HTTP_HTTP_SERVER_H_
