#include "server/http/session.h"

#include <fmt/core.h>

#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <cstring>
#include <utility>

#include "server/http/session_exchange.h"

namespace lapidary {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr size_t kBufferBytes = 64 * 1024;
constexpr std::chrono::milliseconds kLinger{1000};

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

int StatusOfParseError(const error_code& code) {
  if (code == http::error::header_limit) return 431;
  if (code == http::error::body_limit) return 413;
  return 400;
}

std::string_view TextOfParseError(int status) {
  if (status == 431) return "The request's headers are over the limit.";
  if (status == 413) return "The request's body is over the limit.";
  return "The request is not valid HTTP/1.1.";
}

}  // namespace

Session::Session(asio::ip::tcp::socket socket, std::shared_ptr<SessionShared> shared)
    : socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      shared_(std::move(shared)),
      buffer_(kBufferBytes) {
  ++shared_->num_connections;
}

Session::~Session() { --shared_->num_connections; }

void Session::Start() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->ReadNext(); });
}

void Session::ReadNext() {
  parser_.emplace();
  parser_->header_limit(shared_->limits.header_bytes);
  parser_->body_limit(shared_->limits.body_bytes);
  parser_->eager(true);
  complete_ = continue_sent_ = false;
  body_bytes_ = 0;
  if (buffer_.size() == 0) {
    Arm(Phase::kIdle, shared_->limits.idle);
    ReadSome();
  } else {
    Arm(Phase::kHeader, shared_->limits.header_deadline);
    ParseBuffered();
  }
}

void Session::ReadSome() {
  if (reading_ || closed_) return;
  const size_t room = kBufferBytes - buffer_.size();
  if (room == 0) return;
  reading_ = true;
  socket_.async_read_some(asio::buffer(scratch_.data(), std::min(room, scratch_.size())),
                          [self = shared_from_this()](const error_code& code, size_t bytes) {
                            self->OnRead(code, bytes);
                          });
}

void Session::OnRead(const error_code& code, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (code) return Hangup();
  std::memcpy(buffer_.prepare(bytes).data(), scratch_.data(), bytes);
  buffer_.commit(bytes);
  switch (phase_) {
    case Phase::kIdle:
      Arm(Phase::kHeader, shared_->limits.header_deadline);
      [[fallthrough]];
    case Phase::kHeader:
    case Phase::kBody:
      return ParseBuffered();
    case Phase::kHandling:
    case Phase::kStreaming:
      return ReadSome();
    case Phase::kClosing:
      buffer_.consume(buffer_.size());
      return ReadSome();
  }
}

void Session::ParseBuffered() {
  error_code code;
  bool first = true;
  while (!parser_->is_done() && (first || buffer_.size() > 0)) {
    first = false;
    const size_t used = parser_->put(buffer_.data(), code);
    buffer_.consume(used);
    if (code && code != http::error::need_more) {
      const int status = StatusOfParseError(code);
      return Refuse(status, TextOfParseError(status));
    }
    if (parser_->is_header_done() && phase_ != Phase::kBody) {
      if (!HeaderAccepted()) return;
      Arm(Phase::kBody, shared_->limits.body_grace);
    }
    body_bytes_ += used;
    if (code == http::error::need_more || used == 0) break;
  }
  if (parser_->is_done()) return Dispatch();
  if (buffer_.size() == kBufferBytes) return Refuse(400, "A chunk's header is over the limit.");
  ReadSome();
}

bool Session::HeaderAccepted() {
  const auto& message = parser_->get();
  if (message.target().size() > shared_->limits.uri_bytes) {
    Refuse(414, "The request's URI is over the limit.");
    return false;
  }
  int num_fields = 0;
  for (const auto& field : message) {
    (void)field;
    ++num_fields;
  }
  if (num_fields > shared_->limits.header_fields) {
    Refuse(431, "The request has too many headers.");
    return false;
  }
  const auto coding = message[http::field::transfer_encoding];
  if (!coding.empty() && LowerCase({coding.data(), coding.size()}) != "chunked") {
    Refuse(400, "The only transfer encoding understood is chunked.");
    return false;
  }
  const auto content = message[http::field::content_encoding];
  if (!content.empty() && LowerCase({content.data(), content.size()}) != "identity") {
    Refuse(415, "Compressed request bodies are not accepted.");
    return false;
  }
  const auto expect = message[http::field::expect];
  if (!expect.empty()) {
    if (LowerCase({expect.data(), expect.size()}) != "100-continue") {
      Refuse(417, "The only expectation understood is 100-continue.");
      return false;
    }
    if (!parser_->is_done()) SendContinue();
  }
  return true;
}

void Session::SendContinue() {
  if (continue_sent_) return;
  continue_sent_ = true;
  out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  WriteMore();
}

void Session::Dispatch() {
  auto message = parser_->release();
  auto request = std::make_shared<HttpRequest>();
  request->method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const size_t mark = target.find('?');
  request->path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) request->query = std::string(target.substr(mark + 1));
  for (const auto& field : message) {
    const std::string name = LowerCase({field.name_string().data(), field.name_string().size()});
    std::string& value = request->headers[name];
    if (!value.empty()) value += ", ";
    value.append(field.value().data(), field.value().size());
  }
  error_code unknown;
  const auto peer = socket_.remote_endpoint(unknown);
  request->from_loopback = !unknown && peer.address().is_loopback();
  request->body = std::move(message.body());
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  head_only_ = message.method() == http::verb::head;
  if (message.version() >= 11 && message.find(http::field::host) == message.end())
    return Refuse(400, "An HTTP/1.1 request needs a Host header.");
  parser_.reset();
  timer_.cancel();
  phase_ = Phase::kHandling;
  auto exchange = std::make_shared<SessionExchange>(shared_from_this(), ++generation_);
  shared_->handler(std::move(request), std::move(exchange));
  if (!closed_ && !complete_ && (phase_ == Phase::kHandling || phase_ == Phase::kStreaming))
    ReadSome();
}

void Session::Refuse(int status, std::string_view message) {
  ++generation_;
  timer_.cancel();
  phase_ = Phase::kHandling;
  head_only_ = false;
  Respond(shared_->error_body(status, message), true);
}

void Session::Respond(HttpResponse response, bool close) {
  if (closed_ || phase_ != Phase::kHandling) return;
  if (close) keep_alive_ = false;
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
                                 response.status, std::string_view(reason.data(), reason.size()),
                                 response.content_type, response.body.size());
  for (const auto& [name, value] : response.headers)
    head.append(name).append(": ").append(value).append("\r\n");
  head += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  Arm(Phase::kStreaming, shared_->limits.stalled_write);
  complete_ = true;
  out_ += head;
  if (!head_only_) out_ += response.body;
  WriteMore();
}

void Session::StartStream(const std::vector<std::pair<std::string, std::string>>& headers) {
  if (closed_ || phase_ != Phase::kHandling) return;
  if (!chunked_) keep_alive_ = false;
  out_ +=
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
      "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  for (const auto& [name, value] : headers)
    out_.append(name).append(": ").append(value).append("\r\n");
  if (chunked_) out_ += "Transfer-Encoding: chunked\r\n";
  out_ += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  last_write_ = Clock::now();
  Arm(Phase::kStreaming, std::min(shared_->limits.keepalive_line, shared_->limits.stalled_write));
  WriteMore();
}

void Session::Append(std::string bytes, bool is_payload) {
  if (closed_ || phase_ != Phase::kStreaming || complete_ || bytes.empty()) return;
  if (out_.size() + in_flight_.size() + bytes.size() > shared_->limits.stream_buffer)
    return Hangup();  // a reader this slow gets nothing more; its request is cancelled
  if (is_payload) last_write_ = Clock::now();
  if (chunked_)
    out_ += fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
  else
    out_ += bytes;
  WriteMore();
}

void Session::FinishAnswer() {
  if (closed_ || phase_ != Phase::kStreaming || complete_) return;
  complete_ = true;
  if (chunked_) out_ += "0\r\n\r\n";
  WriteMore();
}

void Session::WriteMore() {
  if (closed_ || writing_) return;
  if (in_flight_.empty()) {
    if (out_.empty()) {
      if (complete_) AnswerDone();
      return;
    }
    std::swap(in_flight_, out_);
  }
  writing_ = true;
  write_start_ = Clock::now();
  socket_.async_write_some(asio::buffer(in_flight_),
                           [self = shared_from_this()](const error_code& code, size_t bytes) {
                             self->writing_ = false;
                             if (self->closed_) return;
                             if (code) return self->Hangup();
                             self->in_flight_.erase(0, bytes);
                             self->WriteMore();
                           });
}

void Session::AnswerDone() {
  if (phase_ != Phase::kStreaming) return;  // only the 100 Continue went out
  on_close_ = nullptr;
  ++generation_;
  complete_ = false;
  if (!keep_alive_) return Linger();
  phase_ = Phase::kIdle;
  ReadNext();
}

// Closing at once would reset the connection while the client still sends, and it would lose the
// answer; so the rest is read and dropped for a moment.
void Session::Linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  Arm(Phase::kClosing, kLinger);
  buffer_.consume(buffer_.size());
  ReadSome();
}

void Session::Hangup() {
  if (closed_) return;
  closed_ = true;
  ++generation_;
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  if (on_close_) std::exchange(on_close_, nullptr)();
}

void Session::Arm(Phase phase, std::chrono::milliseconds delay) {
  if (phase != phase_ || phase == Phase::kIdle) phase_start_ = Clock::now();
  phase_ = phase;
  timer_.expires_after(delay);
  timer_.async_wait([self = shared_from_this()](const error_code& code) {
    // A handler that was already queued when the timer was set anew sees the later expiry.
    if (!code && !self->closed_ && self->timer_.expiry() <= Clock::now()) self->OnTimer();
  });
}

void Session::OnTimer() {
  const HttpLimits& limits = shared_->limits;
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kClosing:
      return Hangup();
    case Phase::kHeader:
      return Refuse(408, "The request's headers did not arrive in time.");
    case Phase::kBody:
      return CheckBodyRate();
    case Phase::kHandling:
      return;
    case Phase::kStreaming:
      break;
  }
  if (writing_ && Clock::now() - write_start_ >= limits.stalled_write) return Hangup();
  if (!complete_ && Clock::now() - last_write_ >= limits.keepalive_line) Append("\n", true);
  if (!closed_ && phase_ == Phase::kStreaming)
    Arm(Phase::kStreaming, std::min(limits.keepalive_line, limits.stalled_write));
}

void Session::CheckBodyRate() {
  const double seconds = std::chrono::duration<double>(Clock::now() - phase_start_).count();
  const double grace = std::chrono::duration<double>(shared_->limits.body_grace).count();
  if (static_cast<double>(body_bytes_) < (seconds - grace) * shared_->limits.body_rate ||
      body_bytes_ == 0)
    return Refuse(408, "The request's body came too slowly.");
  Arm(Phase::kBody, std::chrono::milliseconds(1000));
}

}  // namespace lapidary
