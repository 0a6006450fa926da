// C = A B: the dense product that the sweeps are made of, alone, so that their time can be held against it.
#pragma once

#include "dispatch.h"

namespace ntkfast {

template <class T>
struct Gemm {
  int64_t rows, columns, depth;
  const T* a;  // (rows, depth)
  const T* b;  // (depth, columns)
  T* out;      // (rows, columns)
};

}  // namespace ntkfast

NTKFAST_CPU_OP(gemm, Gemm)
