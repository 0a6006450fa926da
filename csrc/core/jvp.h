// The arguments of J v from stored factors.
#pragma once

#include "params.h"

namespace ntkfast {

template <class T>
struct Jvp {
  Sweep<T> sweep;          // A and D
  const T* const* weight;  // per layer (n_out, n_in) of v; null where θ is not in the Jacobian
  const T* const* bias;    // per layer (n_out) of v
  double* out;             // (N)
};

}  // namespace ntkfast
