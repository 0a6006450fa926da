// The instruction-set level: the widest that processor and operating system support, or a lower one by NTKFAST_ISA.
#include "cpu/dispatch.h"

#if NTKFAST_HAS_X86_LEVELS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ntkfast {
namespace {

constexpr const char* kNames[] = {"base", "avx2", "avx512", "amx"};

#if NTKFAST_HAS_X86_LEVELS
// Matrix tiles: the processor has them, and Linux lends this process their 8 KB of state a thread.
bool lends_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kNeeds = 1u << 22 | 1u << 24 | 1u << 25;  // cpuid 7, edx: bfloat16, tiles, int8
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kNeeds) != kNeeds) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

// The widest level up to `most`. Permission for tiles is asked for only where they are wanted.
int supported(int most) {
#if NTKFAST_HAS_X86_LEVELS
  __builtin_cpu_init();
  if (most < 1 || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (most < 2 || !wide) return 1;
  return most > 2 && __builtin_cpu_supports("avx512bf16") && lends_tiles() ? 3 : 2;
#else
  (void)most;
  return 0;
#endif
}

int choose() {
  constexpr int kWidest = 3;
  const char* wanted = std::getenv("NTKFAST_ISA");
  if (wanted == nullptr) return supported(kWidest);
  for (int level = 0; level <= kWidest; ++level)
    if (std::strcmp(wanted, kNames[level]) == 0) return supported(level);
  throw std::runtime_error(std::string("NTKFAST_ISA: expected base, avx2, avx512 or amx, got ") + wanted);
}

}  // namespace

Isa isa() {
  static const Isa level = static_cast<Isa>(choose());
  return level;
}

const char* isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace ntkfast
