// One declaration per native operation; the implementation of the widest instruction set that the processor has is
// called.
#pragma once

#include "../core/params.h"

#if defined(__x86_64__)
#define NTKFAST_HAS_X86_LEVELS 1
#else
#define NTKFAST_HAS_X86_LEVELS 0
#endif

namespace ntkfast {

enum class Isa : int { base = 0, avx2 = 1, avx512 = 2, amx = 3 };

Isa isa();  // chosen once; NTKFAST_ISA=base|avx2|avx512|amx lowers it
const char* isa_name();

// Runs body(context, slot) for slots 0 … threads−1, concurrently.
struct Parallel {
  int threads;
  void (*run)(int threads, void (*body)(void* context, int slot), void* context);
};

}  // namespace ntkfast

#if NTKFAST_HAS_X86_LEVELS
#define NTKFAST_CPU_OP(name, Params)                             \
  namespace ntkfast {                                            \
  namespace base {                                               \
  template <class T>                                             \
  void name(const Params<T>&, const Parallel&);                  \
  }                                                              \
  namespace avx2 {                                               \
  template <class T>                                             \
  void name(const Params<T>&, const Parallel&);                  \
  }                                                              \
  namespace avx512 {                                             \
  template <class T>                                             \
  void name(const Params<T>&, const Parallel&);                  \
  }                                                              \
  namespace amx {                                                \
  template <class T>                                             \
  void name(const Params<T>&, const Parallel&);                  \
  }                                                              \
  template <class T>                                             \
  void name(const Params<T>& params, const Parallel& parallel) { \
    switch (isa()) {                                             \
      case Isa::amx: return amx::name(params, parallel);         \
      case Isa::avx512: return avx512::name(params, parallel);   \
      case Isa::avx2: return avx2::name(params, parallel);       \
      case Isa::base: return base::name(params, parallel);       \
    }                                                            \
  }                                                              \
  }
#else
#define NTKFAST_CPU_OP(name, Params)                             \
  namespace ntkfast {                                            \
  namespace base {                                               \
  template <class T>                                             \
  void name(const Params<T>&, const Parallel&);                  \
  }                                                              \
  template <class T>                                             \
  void name(const Params<T>& params, const Parallel& parallel) { \
    base::name(params, parallel);                                \
  }                                                              \
  }
#endif

// At the foot of the file that defines the operation: both precisions of the level being compiled.
#define NTKFAST_INSTANTIATE(name, Params)                             \
  namespace ntkfast {                                                 \
  namespace NTKFAST_ISA {                                             \
  template void name<float>(const Params<float>&, const Parallel&);   \
  template void name<double>(const Params<double>&, const Parallel&); \
  }                                                                   \
  }
