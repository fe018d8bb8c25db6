// What launchers share with the host: the stream type without CUDA's headers.
#ifndef LAPIDARY_KERNELS_COMMON_LAUNCH_H_
#define LAPIDARY_KERNELS_COMMON_LAUNCH_H_

struct CUstream_st;

namespace lapidary::kernels {

using Stream = CUstream_st*;

// A launch that CUDA refused is a bug: ends the process through CHECK, naming the kernel.
[[noreturn]] void LaunchFailed(const char* kernel, int error);
// A shape a kernel was not made for, likewise.
[[noreturn]] void ShapeRefused(const char* kernel, const char* what, long long value);

// The multiprocessors of the current device; asked once.
int NumSms();

// Is told of every launch of an own kernel, with its address as the runtime knows it; null: nobody
// is. For the test that every kernel has a case.
using LaunchObserver = void (*)(const void* kernel);
extern LaunchObserver launch_observer;

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_LAUNCH_H_
