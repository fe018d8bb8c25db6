// Session: one connection. Reads a request, hands it to the handler, writes the answer, reads the
// next. While an answer is being made it goes on reading, so that a hang-up is noticed in every
// phase; bytes of a pipelined request wait in the buffer meanwhile.
#ifndef LAPIDARY_SERVER_HTTP_SESSION_H_
#define LAPIDARY_SERVER_HTTP_SESSION_H_

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/http/exchange.h"
#include "server/http/http_server.h"

namespace lapidary {

struct SessionShared {
  HttpLimits limits;
  HttpHandler handler;
  HttpErrorBody error_body;
  std::atomic<int> num_connections{0};
};

// Owned by its pending operations. Every member function runs on the socket's strand.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::ip::tcp::socket socket, std::shared_ptr<SessionShared> shared);
  ~Session();
  void Start();

 private:
  friend class SessionExchange;
  using Clock = std::chrono::steady_clock;
  enum class Phase { kIdle, kHeader, kBody, kHandling, kStreaming, kClosing };

  void ReadNext();
  void ReadSome();
  void OnRead(const boost::system::error_code& code, size_t bytes);
  void ParseBuffered();
  bool HeaderAccepted();
  void SendContinue();
  void Dispatch();
  void Refuse(int status, std::string_view message);

  void Respond(HttpResponse response, bool close);
  void StartStream(const std::vector<std::pair<std::string, std::string>>& headers);
  void Append(std::string bytes, bool is_payload);
  void FinishAnswer();
  void WriteMore();
  void AnswerDone();
  void Hangup();
  void Linger();
  void Arm(Phase phase, std::chrono::milliseconds delay);
  void OnTimer();
  void CheckBodyRate();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<SessionShared> shared_;
  // A pending read writes here and not into buffer_, which the parser may consume meanwhile.
  std::array<char, 16 * 1024> scratch_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  Phase phase_ = Phase::kIdle;
  std::chrono::steady_clock::time_point phase_start_, write_start_, last_write_;
  uint64_t body_bytes_ = 0;
  bool reading_ = false, writing_ = false, closed_ = false;
  bool keep_alive_ = true, chunked_ = false, complete_ = false, head_only_ = false;
  bool continue_sent_ = false;
  uint64_t generation_ = 0;  // of the answer; late calls of an earlier exchange are dropped
  std::string out_, in_flight_;
  std::function<void()> on_close_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_HTTP_SESSION_H_
