#include "server/http/http_server.h"

#include <fmt/core.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <vector>

#include "base/result.h"
#include "server/http/session.h"

namespace lapidary {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class HttpServer::Impl {
 public:
  Impl(const std::string& host, int port, int num_threads, const HttpLimits& limits,
       HttpHandler handler, HttpErrorBody error_body)
      : acceptor_(asio::make_strand(context_)),
        retry_(acceptor_.get_executor()),
        shared_(std::make_shared<SessionShared>()) {
    shared_->limits = limits;
    shared_->handler = std::move(handler);
    shared_->error_body = std::move(error_body);
    Bind(host, port);
    port_ = acceptor_.local_endpoint().port();
    Accept();
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { context_.run(); });
  }

  ~Impl() { Stop(); }

  void Stop() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  void StopAccepting() {
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
    });
  }

  int port_ = 0;
  std::shared_ptr<SessionShared>& shared() { return shared_; }

 private:
  void Bind(const std::string& host, int port) {
    error_code code;
    tcp::resolver resolver(context_);
    const auto found = resolver.resolve(
        host, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, code);
    if (code || found.empty())
      throw StartupError(fmt::format("cannot resolve --host {}: {}", host, code.message()));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), code);
    if (!code) acceptor_.set_option(tcp::acceptor::reuse_address(true), code);
    if (!code) acceptor_.bind(endpoint, code);
    if (!code) acceptor_.listen(1024, code);
    if (code == asio::error::address_in_use)
      throw StartupError(fmt::format(
          "port {} on {} is in use by another program; choose one with --port", port, host));
    if (code)
      throw StartupError(fmt::format("cannot listen on {}:{}: {}", host, port, code.message()));
  }

  void Accept() {
    acceptor_.async_accept(asio::make_strand(context_),
                           [this](const error_code& code, tcp::socket socket) {
                             if (code == asio::error::operation_aborted || !acceptor_.is_open())
                               return;
                             if (code) return RetryAccept();
                             if (shared_->num_connections < shared_->limits.connections) {
                               error_code ignored;
                               socket.set_option(tcp::no_delay(true), ignored);
                               std::make_shared<Session>(std::move(socket), shared_)->Start();
                             }
                             Accept();
                           });
  }

  // Out of file descriptors: waiting a little beats spinning.
  void RetryAccept() {
    retry_.expires_after(std::chrono::milliseconds(50));
    retry_.async_wait([this](const error_code& code) {
      if (!code) Accept();
    });
  }

  asio::io_context context_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::shared_ptr<SessionShared> shared_;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(const std::string& host, int port, int num_threads, const HttpLimits& limits,
                       HttpHandler handler, HttpErrorBody error_body)
    : impl_(std::make_unique<Impl>(host, port, num_threads, limits, std::move(handler),
                                   std::move(error_body))) {}

HttpServer::~HttpServer() = default;
int HttpServer::port() const { return impl_->port_; }
int HttpServer::num_connections() const { return impl_->shared()->num_connections; }
void HttpServer::StopAccepting() { impl_->StopAccepting(); }
void HttpServer::Stop() { impl_->Stop(); }

}  // namespace lapidary
