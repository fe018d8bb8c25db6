// What a handler sees of HTTP: one parsed request, and the exchange that takes its answer.
#ifndef LAPIDARY_SERVER_HTTP_EXCHANGE_H_
#define LAPIDARY_SERVER_HTTP_EXCHANGE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lapidary {

struct HttpRequest {
  std::string method, path, query;
  std::map<std::string, std::string> headers;  // names in lower case; repeated ones joined by ", "
  std::string body;
  bool from_loopback = false;  // the peer's address

  // The header's value, or empty.
  std::string_view header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string_view() : std::string_view(it->second);
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// One request's way back to its client. Methods may be called from any thread and never block; what
// comes after the client has gone is dropped. Either Respond once, or StartStream, Write...,
// Finish.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void Respond(HttpResponse response) = 0;
  // Sends status 200 and the headers of a server-sent event stream; keep-alive lines start.
  virtual void StartStream(std::vector<std::pair<std::string, std::string>> headers) = 0;
  virtual void Write(std::string bytes) = 0;
  virtual void Finish() = 0;
  // Runs `task` on the connection's strand: tasks of one exchange never overlap.
  virtual void Post(std::function<void()> task) = 0;
  // Called on the strand, at most once, when the client went away or read too slowly before the
  // answer was complete.
  virtual void OnClose(std::function<void()> callback) = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpRequest>, std::shared_ptr<Exchange>)>;

// The answer to a request that HTTP itself refuses (status 4xx), in the API's error shape.
using HttpErrorBody = std::function<HttpResponse(int status, std::string_view message)>;

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_HTTP_EXCHANGE_H_
