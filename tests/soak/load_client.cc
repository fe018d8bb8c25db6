#include "tests/soak/load_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace lapidary {

using Clock = std::chrono::steady_clock;

LoadClient::LoadClient(int port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    Leave(Leaving::kFin);
}

LoadClient::~LoadClient() { Leave(Leaving::kFin); }

void LoadClient::Leave(Leaving how) {
  if (socket_ < 0) return;
  const linger reset{1, 0};
  if (how == Leaving::kReset) setsockopt(socket_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(socket_);
  socket_ = -1;
}

void LoadClient::Send(const std::string& path, const std::string& body) {
  const std::string message = "POST " + path +
                              " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                              "Content-Length: " +
                              std::to_string(body.size()) + "\r\n\r\n" + body;
  sent_ = Clock::now();
  size_t done = 0;
  while (done < message.size()) {
    const ssize_t bytes = send(socket_, message.data() + done, message.size() - done, MSG_NOSIGNAL);
    if (bytes <= 0) return;
    done += static_cast<size_t>(bytes);
  }
}

void LoadClient::ReadSome(size_t num_bytes) {
  char buffer[4096];
  while (text_.size() < num_bytes) {
    const ssize_t bytes = recv(socket_, buffer, sizeof(buffer), 0);
    if (bytes <= 0) return;
    text_.append(buffer, static_cast<size_t>(bytes));
  }
}

LoadReply LoadClient::ReadAll() {
  ReadSome(std::string::npos);
  LoadReply reply;
  reply.seconds = std::chrono::duration<double>(Clock::now() - sent_).count();
  reply.status = text_.size() > 12 ? std::atoi(text_.c_str() + 9) : 0;
  reply.text = std::move(text_);
  return reply;
}

}  // namespace lapidary
