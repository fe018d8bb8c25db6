// SHA-256 (FIPS 180-4) and the HMAC of it (RFC 2104).
#ifndef LAPIDARY_BASE_SHA256_H_
#define LAPIDARY_BASE_SHA256_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace lapidary {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(std::string_view bytes);
Sha256Digest HmacSha256(std::string_view key, std::string_view bytes);

// 64 lower-case hex digits.
std::string Sha256Hex(std::string_view bytes);

}  // namespace lapidary

#endif  // LAPIDARY_BASE_SHA256_H_
