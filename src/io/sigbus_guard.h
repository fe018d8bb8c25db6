// SIGBUS on a mapped file means that the file was cut after it was mapped. While loading that is a
// refusal; after ready it is fail-stop 71 naming the file.
#ifndef LAPIDARY_IO_SIGBUS_GUARD_H_
#define LAPIDARY_IO_SIGBUS_GUARD_H_

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace lapidary {

// Runs body on this thread. False when it was abandoned because of a SIGBUS inside `map` (anywhere,
// if map is empty): body then stopped in the middle, without unwinding, so it must only read the
// map and write plain values.
bool WithSigbusGuard(std::span<const std::byte> map, const std::function<void()>& body);

// From now on a SIGBUS inside this range writes one line naming the file and ends the process with
// exit code 71. At most 8192 maps; unregistered when the mapping goes away (UnregisterWeightMap).
void RegisterWeightMap(std::span<const std::byte> map, const std::string& path);
void UnregisterWeightMap(std::span<const std::byte> map);

}  // namespace lapidary

#endif  // LAPIDARY_IO_SIGBUS_GUARD_H_
