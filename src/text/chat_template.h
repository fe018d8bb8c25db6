// Gemma 4's chat templates (GEMMA4.md 12), compiled in: messages in OpenAI's shape -> prompt.
#ifndef LAPIDARY_TEXT_CHAT_TEMPLATE_H_
#define LAPIDARY_TEXT_CHAT_TEMPLATE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace lapidary {

// kEdge: E2B, E4B. kThinkPrefill: the others, whose prompt ends in an empty thought channel when
// thinking is off. kApril: the revision E2B was released with.
enum class TemplateRevision { kEdge, kThinkPrefill, kApril };

struct RenderOptions {
  bool enable_thinking = false, preserve_thinking = false, add_generation_prompt = true;
};

// Control pieces are written by the template and are one added token each. All other text is to be
// encoded with Tokenizer::Specials::kAsText, so that nothing in a message can forge a turn. Two
// text pieces never stand side by side.
struct PromptPiece {
  std::string text;
  bool is_control = false;
  bool operator==(const PromptPiece&) const = default;
};

// Media parts become their placeholder tokens. `tools` may be null. An Error's param is the path
// of what cannot be rendered ("messages[2].tool_calls[0].function.arguments").
Result<std::vector<PromptPiece>> RenderChat(TemplateRevision revision, const json::array& messages,
                                            const json::array* tools, const RenderOptions& options);
std::string JoinPrompt(const std::vector<PromptPiece>& pieces);

// By SHA-256 of the text without trailing white space.
std::optional<TemplateRevision> RecogniseTemplate(std::string_view jinja_text);
// For a model folder without a template, or with one that is not known.
TemplateRevision DefaultTemplate(bool has_per_layer_embeddings);
std::string_view TemplateName(TemplateRevision revision);
std::optional<TemplateRevision> TemplateByName(std::string_view name);

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_CHAT_TEMPLATE_H_
