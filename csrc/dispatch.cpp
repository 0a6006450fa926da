// The instruction-set level: the widest that processor and operating system support, or a lower one by NTKFAST_ISA.
#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ntkfast {
namespace {

constexpr const char* kNames[] = {"base", "avx2", "avx512"};

int supported() {
#if NTKFAST_HAS_X86_LEVELS
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return wide ? 2 : 1;
#else
  return 0;
#endif
}

int choose() {
  const int widest = supported();
  const char* wanted = std::getenv("NTKFAST_ISA");
  if (wanted == nullptr) return widest;
  for (int level = 0; level <= widest; ++level)
    if (std::strcmp(wanted, kNames[level]) == 0) return level;
  for (const char* name : kNames)
    if (std::strcmp(wanted, name) == 0) return widest;
  throw std::runtime_error(std::string("NTKFAST_ISA: expected base, avx2 or avx512, got ") + wanted);
}

}  // namespace

Isa isa() {
  static const Isa level = static_cast<Isa>(choose());
  return level;
}

const char* isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace ntkfast
