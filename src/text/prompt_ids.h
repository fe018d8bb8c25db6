// From a rendered prompt to ids.
#ifndef LAPIDARY_TEXT_PROMPT_IDS_H_
#define LAPIDARY_TEXT_PROMPT_IDS_H_

#include <cstdint>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace lapidary {

// Control pieces become their token; all else is encoded as text, so that nothing in a message can
// forge a turn.
std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer,
                                  const std::vector<PromptPiece>& pieces);

// Whether the prompt ends in an open thought channel: the reply then begins inside the thought.
bool EndsInThought(const std::vector<PromptPiece>& pieces);

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_PROMPT_IDS_H_
