// SHA-256 (FIPS 180-4), to know files by their content. Not for secrets.
#ifndef LAPIDARY_BASE_SHA256_H_
#define LAPIDARY_BASE_SHA256_H_

#include <string>
#include <string_view>

namespace lapidary {

// 64 lower-case hex digits.
std::string Sha256Hex(std::string_view bytes);

}  // namespace lapidary

#endif  // LAPIDARY_BASE_SHA256_H_
