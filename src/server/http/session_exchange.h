// SessionExchange: the Exchange of one request on a Session; every call hops to its strand.
#ifndef LAPIDARY_SERVER_HTTP_SESSION_EXCHANGE_H_
#define LAPIDARY_SERVER_HTTP_SESSION_EXCHANGE_H_

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/http/session.h"

namespace lapidary {

class SessionExchange : public Exchange {
 public:
  SessionExchange(std::shared_ptr<Session> session, uint64_t generation)
      : session_(std::move(session)), generation_(generation) {}

  void Respond(HttpResponse response) override {
    Run([response = std::move(response)](Session& session) mutable {
      session.Respond(std::move(response), false);
    });
  }
  void StartStream(std::vector<std::pair<std::string, std::string>> headers) override {
    Run([headers = std::move(headers)](Session& session) { session.StartStream(headers); });
  }
  void Write(std::string bytes) override {
    Run([bytes = std::move(bytes)](Session& session) mutable {
      session.Append(std::move(bytes), true);
    });
  }
  void Finish() override {
    Run([](Session& session) { session.FinishAnswer(); });
  }
  void Post(std::function<void()> task) override {
    boost::asio::post(session_->socket_.get_executor(), std::move(task));
  }
  void OnClose(std::function<void()> callback) override {
    auto shared = std::make_shared<std::function<void()>>(std::move(callback));
    boost::asio::dispatch(session_->socket_.get_executor(),
                          [session = session_, generation = generation_, shared] {
                            if (session->closed_)
                              (*shared)();
                            else if (session->generation_ == generation)
                              session->on_close_ = std::move(*shared);
                          });
  }

 private:
  template <typename Body>
  void Run(Body body) {
    boost::asio::dispatch(
        session_->socket_.get_executor(),
        [session = session_, generation = generation_, body = std::move(body)]() mutable {
          if (session->generation_ == generation) body(*session);
        });
  }

  std::shared_ptr<Session> session_;
  uint64_t generation_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_HTTP_SESSION_EXCHANGE_H_
