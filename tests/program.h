// Program: the built program as a child, over pipes or on a terminal of its own.
#ifndef LAPIDARY_TESTS_PROGRAM_H_
#define LAPIDARY_TESTS_PROGRAM_H_

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace lapidary {

struct ProgramResult {
  int exit_code = -1;  // -1: ended by a signal
  std::string out, err;
};

class Program {
 public:
  // Standard output and error are one stream on a terminal.
  Program(const std::string& path, std::vector<std::string> args, bool on_terminal = false) {
    args.insert(args.begin(), path);
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    if (on_terminal) {
      pid_ = forkpty(&in_, nullptr, nullptr, nullptr);
      out_ = in_;
    } else {
      if (pipe2(in, O_CLOEXEC) + pipe2(out, O_CLOEXEC) + pipe2(err, O_CLOEXEC) != 0) return;
      pid_ = fork();
    }
    if (pid_ == 0) {
      if (!on_terminal) dup2(in[0], 0), dup2(out[1], 1), dup2(err[1], 2);
      std::vector<char*> argv;
      argv.reserve(args.size() + 1);
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      execv(path.c_str(), argv.data());
      _exit(127);
    }
    if (on_terminal) return;
    close(in[0]), close(out[1]), close(err[1]);
    in_ = in[1], out_ = out[0], err_ = err[0];
  }
  ~Program() {
    if (pid_ > 0) kill(pid_, SIGKILL), Wait();
    if (in_ >= 0) close(in_);
    if (out_ >= 0 && out_ != in_) close(out_);
    if (err_ >= 0) close(err_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Send(const std::string& text) {
    if (write(in_, text.data(), text.size()) < 0) std::perror("write");
  }
  void CloseInput() {
    if (in_ >= 0 && in_ != out_) close(std::exchange(in_, -1));
  }
  void Signal(int number) { kill(pid_, number); }

  // Reads until the output, or the error stream, holds `text` after what was waited for before.
  bool WaitFor(const std::string& text, bool in_error = false, int seconds = 60) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    std::string& all = in_error ? result_.err : result_.out;
    size_t& seen = in_error ? seen_err_ : seen_out_;
    while (true) {
      if (const size_t at = all.find(text, seen); at != std::string::npos) {
        seen = at + text.size();
        return true;
      }
      if (std::chrono::steady_clock::now() > end || !ReadSome()) return false;
    }
  }
  // Reads all there is and waits for the end.
  ProgramResult Finish() {
    CloseInput();
    while (ReadSome()) {
    }
    Wait();
    return result_;
  }
  const ProgramResult& so_far() const { return result_; }

 private:
  // False at the end of both streams.
  bool ReadSome() {
    pollfd sources[2] = {{out_open_ ? out_ : -1, POLLIN, 0}, {err_open_ ? err_ : -1, POLLIN, 0}};
    if ((!out_open_ || out_ < 0) && (!err_open_ || err_ < 0)) return false;
    poll(sources, 2, 100);
    Take(sources[0], out_open_, result_.out);
    Take(sources[1], err_open_, result_.err);
    return true;
  }
  static void Take(const pollfd& source, bool& is_open, std::string& to) {
    if (source.fd < 0 || source.revents == 0) return;
    char bytes[4096];
    const ssize_t got = read(source.fd, bytes, sizeof bytes);
    if (got <= 0)
      is_open = false;
    else
      to.append(bytes, static_cast<size_t>(got));
  }
  void Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  bool out_open_ = true, err_open_ = true;
  size_t seen_out_ = 0, seen_err_ = 0;
  ProgramResult result_;
};

inline ProgramResult RunProgram(const std::string& path, std::vector<std::string> args,
                                const std::string& input = "") {
  Program program(path, std::move(args));
  if (!input.empty()) program.Send(input);
  return program.Finish();
}

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_PROGRAM_H_
