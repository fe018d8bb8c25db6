// render: a conversation in OpenAI's shape to the text of its prompt.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include <iostream>
#include <iterator>
#include <memory>

#include "app/command.h"
#include "io/json.h"
#include "text/chat_template.h"

namespace lapidary {
namespace {

struct RenderFlags {
  TemplateRevision revision = TemplateRevision::kEdge;
  bool thinking = false;
};

bool Switch(const json::object& kwargs, std::string_view name, bool otherwise) {
  const json::value* value = kwargs.if_contains(name);
  if (value == nullptr) return otherwise;
  if (!value->is_bool()) throw StartupError(fmt::format("kwargs.{} must be true or false", name));
  return value->get_bool();
}

RenderOptions ReadOptions(const json::object& conversation, bool thinking) {
  RenderOptions options;
  if (const json::value* kwargs = conversation.if_contains("kwargs")) {
    if (!kwargs->is_object()) throw StartupError("kwargs must be an object");
    const json::object& given = kwargs->get_object();
    options.enable_thinking = Switch(given, "enable_thinking", options.enable_thinking);
    options.preserve_thinking = Switch(given, "preserve_thinking", options.preserve_thinking);
    options.add_generation_prompt =
        Switch(given, "add_generation_prompt", options.add_generation_prompt);
  }
  if (thinking) options.enable_thinking = true;
  return options;
}

const json::array* ReadArray(const json::object& conversation, std::string_view name) {
  const json::value* value = conversation.if_contains(name);
  if (value == nullptr || value->is_null()) return nullptr;
  if (!value->is_array()) throw StartupError(fmt::format("{} must be a list", name));
  return &value->get_array();
}

int RunRender(const RenderFlags& flags) {
  std::ios::sync_with_stdio(false);
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  const auto document = ParseJson(input, "the conversation");
  if (!document.ok()) throw StartupError(document.error().message);
  if (!document.value().is_object())
    throw StartupError("the conversation must be an object with messages");
  const json::object& conversation = document.value().get_object();
  const json::array* messages = ReadArray(conversation, "messages");
  if (messages == nullptr) throw StartupError("messages is missing");
  const auto pieces = RenderChat(flags.revision, *messages, ReadArray(conversation, "tools"),
                                 ReadOptions(conversation, flags.thinking));
  if (!pieces.ok()) throw StartupError(pieces.error().message);
  std::cout << JoinPrompt(pieces.value());
  std::cout.flush();
  if (!std::cout) throw StartupError("the output cannot be written");
  return 0;
}

std::function<int()> SetUpRender(CLI::App& app) {
  auto flags = std::make_shared<RenderFlags>();
  app.add_option_function<std::string>(
         "--template-revision",
         [flags](const std::string& name) {
           const auto revision = TemplateByName(name);
           if (!revision)
             throw CLI::ValidationError("--template-revision",
                                        name + " is none of edge, thinkprefill, april");
           flags->revision = *revision;
         },
         "edge, thinkprefill or april")
      ->default_str(std::string(TemplateName(flags->revision)));
  app.add_flag("--thinking", flags->thinking, "as kwargs.enable_thinking");
  return [flags] { return RunRender(*flags); };
}

}  // namespace

const Command kRenderCommand = {
    "render", "turn a conversation (JSON on standard input) into its prompt",
    R"(echo '{"messages":[{"role":"user","content":"Hi"}]}' | lapidary render)", SetUpRender};

}  // namespace lapidary
