// wgmma of the shapes used: M = 64 rows a warpgroup, N by the size of the accumulator, K = 16.
// Operands of shared memory are tiles of rows of 128 bytes with the 128-byte swizzle, starting at
// 1024-byte borders.
#ifndef LAPIDARY_KERNELS_COMMON_WGMMA_CUH_
#define LAPIDARY_KERNELS_COMMON_WGMMA_CUH_

#include <cstdint>

namespace lapidary::kernels {

// Orders accesses to the accumulators before the products that follow.
__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// A tile whose K runs along its rows: eight rows are 1024 bytes. The next 16 of K are 32 bytes on.
__device__ __forceinline__ uint64_t KMajorDescriptor(uint32_t shared) {
  return (static_cast<uint64_t>(1) << 62) | (static_cast<uint64_t>(1024 >> 4) << 32) |
         (static_cast<uint64_t>(1) << 16) | ((shared & 0x3ffff) >> 4);
}

// A tile whose K runs down its rows (64 columns of a row are 128 bytes, eight rows 1024):
// `block_bytes` from 64 columns to the next 64. The next 16 of K are 2048 bytes on.
__device__ __forceinline__ uint64_t ColumnMajorDescriptor(uint32_t shared, uint32_t block_bytes) {
  return (static_cast<uint64_t>(1) << 62) | (static_cast<uint64_t>(1024 >> 4) << 32) |
         (static_cast<uint64_t>(block_bytes >> 4) << 16) | ((shared & 0x3ffff) >> 4);
}

// The accumulator's registers as the assembler's operands: LAPIDARY_REGS_n names n of them from %0
// on, LAPIDARY_Dn(i) binds d[i] .. d[i + n - 1].
#define LAPIDARY_REGS_4 "%0,%1,%2,%3"
#define LAPIDARY_REGS_8 LAPIDARY_REGS_4 ",%4,%5,%6,%7"
#define LAPIDARY_REGS_16 LAPIDARY_REGS_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define LAPIDARY_REGS_32 \
  LAPIDARY_REGS_16       \
  ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define LAPIDARY_REGS_40 LAPIDARY_REGS_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define LAPIDARY_REGS_64                                             \
  LAPIDARY_REGS_40                                                   \
  ",%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55" \
  ",%56,%57,%58,%59,%60,%61,%62,%63"
#define LAPIDARY_REGS_128                                                        \
  LAPIDARY_REGS_64                                                               \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"             \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"             \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define LAPIDARY_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LAPIDARY_D8(i) LAPIDARY_D4(i), LAPIDARY_D4(i + 4)
#define LAPIDARY_D16(i) LAPIDARY_D8(i), LAPIDARY_D8(i + 8)
#define LAPIDARY_D32(i) LAPIDARY_D16(i), LAPIDARY_D16(i + 16)
#define LAPIDARY_D64(i) LAPIDARY_D32(i), LAPIDARY_D32(i + 32)

// d[64,N] (+)= A[64,16] B[N,16]^T, both K-major in shared memory; N = 2 * count. The numbers of
// a, b and accumulate follow those of d.
#define LAPIDARY_WGMMA(n, count, a_b, accumulates, ...)                                      \
  __device__ __forceinline__ void Wgmma(float(&d)[count], uint64_t a, uint64_t b,            \
                                        int accumulate) {                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " accumulates                             \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" n                                 \
                 "k16.f32.bf16.bf16 {" LAPIDARY_REGS_##count "}, " a_b ", p, 1, 1, 0, 0;\n}" \
                 : __VA_ARGS__                                                               \
                 : "l"(a), "l"(b), "r"(accumulate));                                         \
  }
LAPIDARY_WGMMA("8", 4, "%4, %5", "%6", LAPIDARY_D4(0))
LAPIDARY_WGMMA("16", 8, "%8, %9", "%10", LAPIDARY_D8(0))
LAPIDARY_WGMMA("32", 16, "%16, %17", "%18", LAPIDARY_D16(0))
LAPIDARY_WGMMA("64", 32, "%32, %33", "%34", LAPIDARY_D32(0))
LAPIDARY_WGMMA("80", 40, "%40, %41", "%42", LAPIDARY_D32(0), LAPIDARY_D8(32))
LAPIDARY_WGMMA("128", 64, "%64, %65", "%66", LAPIDARY_D64(0))

// d[64,256] (+)= A[64,16] B[16,256]: A in registers, B with its columns along the rows of shared
// memory.
__device__ __forceinline__ void WgmmaTransposed(float (&d)[128], const uint32_t (&a)[4], uint64_t b,
                                                int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" LAPIDARY_REGS_128
      "}, {%128,%129,%130,%131}, %132, p, 1, 1, 1;\n}"
      : LAPIDARY_D64(0), LAPIDARY_D64(64)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
}

#undef LAPIDARY_WGMMA
#undef LAPIDARY_D4
#undef LAPIDARY_D8
#undef LAPIDARY_D16
#undef LAPIDARY_D32
#undef LAPIDARY_D64
#undef LAPIDARY_REGS_4
#undef LAPIDARY_REGS_8
#undef LAPIDARY_REGS_16
#undef LAPIDARY_REGS_32
#undef LAPIDARY_REGS_40
#undef LAPIDARY_REGS_64
#undef LAPIDARY_REGS_128

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_WGMMA_CUH_
