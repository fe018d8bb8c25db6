// RunningServer: `lapidary serve` as a child.
#ifndef LAPIDARY_TESTS_COMMANDS_RUNNING_SERVER_H_
#define LAPIDARY_TESTS_COMMANDS_RUNNING_SERVER_H_

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/program.h"

namespace lapidary {

// A running server on a free port.
class RunningServer {
 public:
  explicit RunningServer(std::vector<std::string> args) {
    args.insert(args.begin(), {"serve", "--port", "0"});
    program_ = std::make_unique<Program>(LAPIDARY_PROGRAM, args);
    if (!program_->WaitFor("http://127.0.0.1:", true)) return;
    program_->WaitFor("(loading)", true);
    const std::string& err = program_->so_far().err;
    port_ = std::atoi(err.c_str() + err.find("127.0.0.1:") + 10);
    program_->WaitFor("ready ", true);
  }
  Program& program() const { return *program_; }
  int port() const { return port_; }
  std::string Post(const std::string& path, const std::string& body,
                   const std::string& headers = "") const {
    const std::string head = body.empty() ? "GET " : "POST ";
    boost::asio::io_context context;
    boost::asio::ip::tcp::socket socket(context);
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(port_)});
    boost::asio::write(
        socket, boost::asio::buffer(head + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
                                    "Connection: close\r\nContent-Length: " +
                                    std::to_string(body.size()) + "\r\n\r\n" + body));
    std::string text;
    boost::system::error_code code;
    boost::asio::read(socket, boost::asio::dynamic_buffer(text), code);
    return text;
  }

 private:
  std::unique_ptr<Program> program_;
  int port_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_COMMANDS_RUNNING_SERVER_H_
