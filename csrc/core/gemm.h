// The arguments of C = A B.
#pragma once

#include <cstdint>

namespace ntkfast {

template <class T>
struct Gemm {
  int64_t rows, columns, depth;
  const T* a;  // (rows, depth)
  const T* b;  // (depth, columns)
  T* out;      // (rows, columns)
};

}  // namespace ntkfast
