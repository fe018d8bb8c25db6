// What `verify` reads.
#ifndef LAPIDARY_APP_VERIFY_H_
#define LAPIDARY_APP_VERIFY_H_

#include "app/golden_check.h"
#include "io/safetensors.h"

namespace lapidary {

// The float and int32 tensors of a goldens file; `file` must outlive them. Throws StartupError for
// a misaligned one.
Goldens ReadGoldens(const Safetensors& file);

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERIFY_H_
