// The folder of Gemma 4's own tokenizer.json, which cannot lie in this repository.
#ifndef LAPIDARY_TESTS_SUPPORT_TOKENIZER_DIR_H_
#define LAPIDARY_TESTS_SUPPORT_TOKENIZER_DIR_H_

#include <string>

namespace lapidary {

// The value of --tokenizer-dir; empty: its tests are skipped.
const std::string& TokenizerDir();

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SUPPORT_TOKENIZER_DIR_H_
