// What a decode graph's padding holds changes no bit.
#ifndef LAPIDARY_TESTS_GPU_PADDING_H_
#define LAPIDARY_TESTS_GPU_PADDING_H_

#include <filesystem>

namespace lapidary {

// The four families with the published head and hidden sizes, few layers and dummy weights;
// `configs` holds the published config.json files by the models' names. Every fill of every graph,
// whose padding rows and unwritten memory are NaN, against the same step run as it is with ordinary
// tokens in the padding. Prints a line a family; whether no bit differed.
bool PaddingChangesNothing(const std::filesystem::path& configs);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_PADDING_H_
