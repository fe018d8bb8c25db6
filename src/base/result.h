// Result<T>: a value or an Error. How a request that is refused travels up to the server; nothing
// throws.
#ifndef LAPIDARY_BASE_RESULT_H_
#define LAPIDARY_BASE_RESULT_H_

#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace lapidary {

struct Error {
  std::string message;  // one sentence for a person
  std::string param;    // the field's path ("messages[2].content"), or empty
  std::string code;     // short machine word ("invalid_value"), or empty
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(state_); }
  const T& value() const& {
    CHECK(ok(), "{}", error().message);
    return std::get<T>(state_);
  }
  T& value() & {
    CHECK(ok(), "{}", error().message);
    return std::get<T>(state_);
  }
  T&& value() && {
    CHECK(ok(), "{}", error().message);
    return std::get<T>(std::move(state_));
  }
  const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

struct Ok {};
using Status = Result<Ok>;

// Thrown only before the server is ready; caught once in main: one sentence that says what to do,
// exit code 1.
class StartupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace lapidary

#endif  // LAPIDARY_BASE_RESULT_H_
