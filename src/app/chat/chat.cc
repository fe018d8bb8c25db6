// lapidary chat: a conversation in the terminal, in process or with a running server.
#include <fmt/core.h>
#include <unistd.h>
#include <CLI/App.hpp>

#include <memory>
#include <optional>

#include "app/chat/chat_partner.h"
#include "app/chat/terminal.h"
#include "app/command.h"
#include "app/model/engine_adapter.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"

namespace lapidary {
namespace {

struct ChatFlags {
  ModelFlags model;
  EngineOptions engine;
  std::string url, api_key, system;
  bool thinking = false;
  int max_tokens = 0;
  std::optional<double> temperature;
  std::optional<int64_t> seed;
};

// What one reply added up to.
struct ReplySum {
  std::string content, finish;
};

const json::value* Find(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// One event of the stream. Some servers name thoughts `reasoning`, others `reasoning_content`, ours
// both.
void Show(const json::object& event, Terminal& terminal, ReplySum& reply) {
  const json::value* choices = Find(event, "choices");
  if (choices == nullptr || !choices->is_array() || choices->get_array().empty()) return;
  const json::object* choice = choices->get_array()[0].if_object();
  if (choice == nullptr) return;
  if (const json::value* finish = Find(*choice, "finish_reason"); finish && finish->is_string())
    reply.finish = finish->get_string();
  const json::value* delta = Find(*choice, "delta");
  if (delta == nullptr || !delta->is_object()) return;
  const json::object& fields = delta->get_object();
  const json::value* thought = Find(fields, "reasoning");
  if (thought == nullptr) thought = Find(fields, "reasoning_content");
  if (thought && thought->is_string() && !thought->get_string().empty())
    terminal.Thought(thought->get_string());
  const json::value* content = Find(fields, "content");
  if (content == nullptr || !content->is_string() || content->get_string().empty()) return;
  terminal.Answer(content->get_string());
  reply.content += content->get_string();
}

class Chat {
 public:
  Chat(const ChatFlags& flags, ChatPartner& partner, Terminal& terminal)
      : flags_(flags), partner_(partner), terminal_(terminal) {
    Reset();
  }

  int Run() {
    while (std::optional<std::string> line = terminal_.ReadLine()) {
      if (*line == "/quit" || *line == "/exit") break;
      if (*line == "/reset") {
        Reset();
        if (terminal_.is_interactive()) fmt::print(stderr, "(a new conversation)\n");
        continue;
      }
      if (line->find_first_not_of(" \t") == std::string::npos) continue;
      // A script must learn that its question was not answered; a person sees it and goes on.
      if (!Ask(*line) && !terminal_.is_interactive()) return kExitFailure;
    }
    return 0;
  }

 private:
  void Reset() {
    messages_ = json::array();
    if (!flags_.system.empty())
      messages_.push_back(json::object{{"role", "system"}, {"content", flags_.system}});
  }

  json::object Body() const {
    json::object body{{"messages", messages_}, {"stream", true}};
    // Only when asked: servers of other models may refuse a field they do not know.
    if (flags_.thinking) body["chat_template_kwargs"] = json::object{{"enable_thinking", true}};
    if (flags_.max_tokens > 0) body["max_tokens"] = flags_.max_tokens;
    if (flags_.temperature) body["temperature"] = *flags_.temperature;
    if (flags_.seed) body["seed"] = *flags_.seed;
    return body;
  }

  // One turn. What was said before Ctrl-C stays in the conversation; a question without any answer
  // does not.
  bool Ask(const std::string& line) {
    messages_.push_back(json::object{{"role", "user"}, {"content", line}});
    ReplySum reply;
    bool interrupted = false;
    const Status status = partner_.Stream(
        Body(), [&](const json::object& event) { Show(event, terminal_, reply); },
        [&] { return interrupted = interrupted || terminal_.TakeInterrupt(); });
    terminal_.EndReply();
    if (reply.content.empty() && (interrupted || !status.ok()))
      messages_.pop_back();
    else
      messages_.push_back(json::object{{"role", "assistant"}, {"content", reply.content}});
    if (interrupted) fmt::print(stderr, "(interrupted)\n");
    if (interrupted) return false;
    if (reply.finish == "length") fmt::print(stderr, "(cut: no more tokens allowed)\n");
    if (status.ok()) return true;
    fmt::print(stderr, "lapidary: {}\n", status.error().message);
    if (status.error().code == "context_length_exceeded" && terminal_.is_interactive())
      fmt::print(stderr, "(/reset begins a new conversation)\n");
    return false;
  }

  const ChatFlags& flags_;
  ChatPartner& partner_;
  Terminal& terminal_;
  json::array messages_;
};

std::unique_ptr<ChatPartner> MakePartner(const ChatFlags& flags) {
  if (!flags.url.empty()) return MakeRemotePartner(flags.url, flags.api_key, flags.model.model);
  LoadedModel model = LoadModel(flags.model);
  NeedTokenizer(model);
  EngineOptions options = WithModel(flags.engine, flags.model, model);
  options.max_running_requests = 1;
  if (isatty(STDERR_FILENO) != 0)
    fmt::print(stderr, "{}   /reset begins anew, /quit or Ctrl-C leaves\n",
               model.dir.filename().string());
  return MakeLocalPartner(StartEngine(model, options), BackendOf(model));
}

int RunChat(const ChatFlags& flags) {
  const std::unique_ptr<ChatPartner> partner = MakePartner(flags);
  Terminal terminal;  // from now on Ctrl-C is ours; before it ends the program
  return Chat(flags, *partner, terminal).Run();
}

std::function<int()> SetUpChat(CLI::App& app) {
  auto f = std::make_shared<ChatFlags>();
  AddModelFlags(app, f->model);
  AddLoadFlags(app, f->model);
  app.add_option("--url", f->url, "of a server to talk to; --model is then its name for one");
  app.add_option("--api-key", f->api_key, "of that server");
  app.add_option("--system", f->system, "the system prompt");
  app.add_flag("--thinking", f->thinking, "let the model think first; thoughts are shown dimmed");
  app.add_option("--max-tokens,--max-new-tokens", f->max_tokens, "tokens a reply (0: what fits)")
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--temperature", f->temperature, "0 is greedy (default: generation_config.json)")
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--seed,--random-seed", f->seed, "of the random numbers (default: random)");
  AddTokenCount(app, "--max-model-len,--context-length", f->engine.max_model_len,
                "context (auto: the model's, or what fits)");
  app.add_option("--num-threads", f->engine.num_threads, "0: all cores")
      ->check(CLI::Range(0, 1024));
  return [f] { return RunChat(*f); };
}

}  // namespace

const Command kChatCommand = {"chat", "a conversation in the terminal",
                              "lapidary chat --thinking, or lapidary chat --url "
                              "http://127.0.0.1:8000",
                              SetUpChat};

}  // namespace lapidary
