// How often a test that repeats itself does so.
#ifndef LAPIDARY_TESTS_SUPPORT_ROUNDS_H_
#define LAPIDARY_TESTS_SUPPORT_ROUNDS_H_

namespace lapidary {

// `normal` scaled by the program's flag --rounds-percent=N (100 unless told), at least 1: sanitizer
// runs, where all is slower, ask for fewer, a longer run for more.
int Rounds(int normal);

// The flag --first-round=N, 0 unless told: where a test counts its rounds from, so that a long run
// can be spread over processes.
int FirstRound();

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SUPPORT_ROUNDS_H_
