// The commit this program was built from, from a file that the build writes.
#ifndef LAPIDARY_APP_VERSION_H_
#define LAPIDARY_APP_VERSION_H_

namespace lapidary {

extern const char* const kCommit;  // with -dirty where files differ from it; "unknown" without git

const char* InstructionSet();  // of the CPU kernels in use: plain, avx2, avx512

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERSION_H_
