// The bytes of a connection: answered in HTTP, and alike wherever the client cuts them.
#include "server/http/session.h"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>

#include "base/check.h"

namespace lapidary {
namespace {

namespace asio = boost::asio;

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

std::shared_ptr<SessionShared> MakeShared() {
  auto shared = std::make_shared<SessionShared>();
  HttpLimits& limits = shared->limits;
  limits.header_bytes = 512;
  limits.header_fields = 8;
  limits.uri_bytes = 128;
  limits.body_bytes = 256;
  // The answer holds all that was understood.
  shared->handler = [](const std::shared_ptr<HttpRequest>& request,
                       const std::shared_ptr<Exchange>& exchange) {
    CHECK(request->body.size() <= 256, "body of {}", request->body.size());
    CHECK(request->path.size() + request->query.size() <= 128, "path");
    HttpResponse response;
    response.body = request->method + " " + request->path + " ? " + request->query + "\n";
    for (const auto& [name, value] : request->headers)
      response.body.append(name).append(":").append(value).append("\n");
    response.body += request->body;
    exchange->Respond(std::move(response));
  };
  shared->error_body = [](int status, std::string_view message) {
    CHECK(400 <= status && status < 500, "status {}", status);
    HttpResponse response;
    response.status = status;
    response.body = message;
    return response;
  };
  return shared;
}

// One connection over a socket pair, driven until nothing moves. A 100 Continue is left out: it is
// sent only to a client whose body has not come yet.
std::string Answer(std::string_view bytes, size_t cut) {
  asio::io_context context(1);
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
  const auto shared = MakeShared();
  std::make_shared<Session>(asio::ip::tcp::socket(context, asio::ip::tcp::v4(), ends[0]), shared)
      ->Start();
  const auto settle = [&] {
    while (context.poll() > 0) {
    }
  };
  std::string answer;
  for (const std::string_view part : {bytes.substr(0, cut), bytes.substr(cut)}) {
    settle();
    if (part.empty()) continue;
    // The session may have closed its end.
    (void)!send(ends[1], part.data(), part.size(), MSG_NOSIGNAL);
    settle();
    char buffer[4096];
    for (ssize_t n; (n = read(ends[1], buffer, sizeof(buffer))) > 0; settle())
      answer.append(buffer, static_cast<size_t>(n));
  }
  shutdown(ends[1], SHUT_WR);
  settle();
  CHECK(shared->num_connections == 0, "the connection outlives its client");
  close(ends[1]);
  for (size_t at; (at = answer.find(kContinue)) != std::string::npos;)
    answer.erase(at, kContinue.size());
  // A request with two faults is refused for the one that is seen first.
  if (const size_t at = answer.rfind("HTTP/1.1 4"); at != std::string::npos) answer.resize(at + 10);
  return answer;
}

}  // namespace
}  // namespace lapidary

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lapidary;  // NOLINT(google-build-using-namespace)
  if (size < 2) return 0;
  // A header that never ends may be refused early or late; so each ends.
  const std::string bytes =
      std::string(reinterpret_cast<const char*>(data) + 2, size - 2) + "\r\n\r\n";
  const size_t cut = (size_t{data[0]} << 8 | data[1]) % bytes.size();
  const std::string whole = Answer(bytes, 0), parts = Answer(bytes, cut);
  CHECK(whole == parts, "cut at {}: {} and {}", cut, whole, parts);
  CHECK(whole.empty() || whole.starts_with("HTTP/1.1 "), "{}", whole);
  return 0;
}
