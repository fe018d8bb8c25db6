// A server over real sockets with the scripted engine and the shipped model's tokenizer.
#ifndef LAPIDARY_TESTS_SERVER_API_SERVER_FIXTURE_H_
#define LAPIDARY_TESTS_SERVER_API_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <string>

#include "server/api_server.h"
#include "tests/server/scripted_engine.h"

namespace lapidary {

using boost::asio::ip::tcp;

class ApiServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ApiOptions options;
    options.port = 0;
    options.limits.header_deadline = std::chrono::milliseconds(300);
    Configure(options);
    server_ = std::make_unique<ApiServer>(options);
    Result<Tokenizer> tokenizer =
        Tokenizer::Load(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    Backend backend;
    backend.tokenizer = std::make_shared<Tokenizer>(std::move(tokenizer).value());
    tokenizer_ = backend.tokenizer;
    engine_ = std::make_shared<ScriptedEngine>(backend.tokenizer->vocab_size());
    Configure(backend);
    server_->Attach(engine_, backend);
  }

  virtual void Configure(ApiOptions&) {}
  virtual void Configure(Backend&) {}

  tcp::socket Connect(int port = 0) {
    tcp::socket socket(context_);
    socket.connect({boost::asio::ip::make_address("127.0.0.1"),
                    static_cast<uint16_t>(port == 0 ? server_->port() : port)});
    return socket;
  }
  // Everything up to the server's close.
  static std::string ReadAll(tcp::socket& socket) {
    std::string text;
    boost::system::error_code code;
    boost::asio::read(socket, boost::asio::dynamic_buffer(text), code);
    return text;
  }
  std::string Raw(const std::string& bytes, int port = 0) {
    tcp::socket socket = Connect(port);
    boost::system::error_code code;
    boost::asio::write(socket, boost::asio::buffer(bytes), code);
    return ReadAll(socket);
  }
  static std::string Message(const std::string& method, const std::string& path,
                             const std::string& body, const std::string& headers = "") {
    return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string Post(const std::string& path, const std::string& body) {
    return Raw(Message("POST", path, body));
  }
  std::string Get(const std::string& path, int port = 0) {
    return Raw(Message("GET", path, ""), port);
  }
  static int StatusOf(const std::string& reply) {
    return reply.size() > 12 ? std::atoi(reply.c_str() + 9) : 0;
  }
  static json::object BodyOf(const std::string& reply) {
    return json::parse(reply.substr(reply.find("\r\n\r\n") + 4)).as_object();
  }

  boost::asio::io_context context_;
  std::unique_ptr<ApiServer> server_;
  std::shared_ptr<ScriptedEngine> engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SERVER_API_SERVER_FIXTURE_H_
