#include "text/prompt_ids.h"

namespace lapidary {

std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer,
                                  const std::vector<PromptPiece>& pieces) {
  std::vector<int32_t> ids;
  for (const PromptPiece& piece : pieces) {
    const auto control = piece.is_control ? tokenizer.Find(piece.text) : std::nullopt;
    if (control) {
      ids.push_back(*control);
      continue;
    }
    const std::vector<int32_t> text = tokenizer.Encode(piece.text, Tokenizer::Specials::kAsText);
    ids.insert(ids.end(), text.begin(), text.end());
  }
  return ids;
}

bool EndsInThought(const std::vector<PromptPiece>& pieces) {
  return pieces.size() >= 2 && pieces[pieces.size() - 2].is_control &&
         pieces[pieces.size() - 2].text == "<|channel>" && pieces.back().text == "thought\n";
}

}  // namespace lapidary
