// Upload: stretches of weight files into a device's memory, read and sent by several threads.
#ifndef LAPIDARY_MODEL_UPLOAD_H_
#define LAPIDARY_MODEL_UPLOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "io/mapped_file.h"

namespace lapidary {

// One tensor's bytes.
struct UploadJob {
  const MappedFile* file = nullptr;
  std::string name;  // for errors
  uint64_t offset = 0, bytes = 0;
  void* to = nullptr;
  bool checks_finite = false;  // refuses NaN and infinity among bf16 numbers
};

// Each thread reads into pinned memory of its own and sends that in one copy. `progress` may be
// empty; it is called by one thread at a time. The error is the first that was met.
Status Upload(const std::vector<UploadJob>& jobs, Device& device,
              const std::function<void(uint64_t done_bytes, uint64_t total_bytes)>& progress);

// Whether one of the bf16 numbers is NaN or infinite, i.e. has an exponent of all ones. Owns
// nothing: may run under ReadGuarded.
bool HasNonFinite(const std::byte* data, size_t bytes);
Error DamagedTensor(const std::string& file, const std::string& tensor);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_UPLOAD_H_
