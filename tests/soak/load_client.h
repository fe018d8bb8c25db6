// LoadClient: plain HTTP requests over a connection each, which may be broken off at any moment.
#ifndef LAPIDARY_TESTS_SOAK_LOAD_CLIENT_H_
#define LAPIDARY_TESTS_SOAK_LOAD_CLIENT_H_

#include <chrono>
#include <string>

namespace lapidary {

struct LoadReply {
  int status = 0;    // 0: none came
  std::string text;  // head and body
  double seconds = 0;
};

enum class Leaving { kFin, kReset };

// A connection to 127.0.0.1.
class LoadClient {
 public:
  explicit LoadClient(int port);
  ~LoadClient();
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  void Send(const std::string& path, const std::string& body);
  // Everything up to the server's close.
  LoadReply ReadAll();
  // Until at least so many bytes came, or the end.
  void ReadSome(size_t num_bytes);
  void Leave(Leaving how);

 private:
  int socket_ = -1;
  std::chrono::steady_clock::time_point sent_{};
  std::string text_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SOAK_LOAD_CLIENT_H_
