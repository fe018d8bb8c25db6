// What the kernel says of this machine under /proc.
#ifndef LAPIDARY_APP_PROC_H_
#define LAPIDARY_APP_PROC_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

// The value of the first "name : value" line of a file; empty without one.
std::string ProcValue(const std::filesystem::path& file, std::string_view name);

// Models of the GPUs of NVIDIA's driver.
std::vector<std::string> GpuNames();

}  // namespace lapidary

#endif  // LAPIDARY_APP_PROC_H_
