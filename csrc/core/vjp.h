// The arguments of Jᵀx from stored factors.
#pragma once

#include "params.h"

namespace ntkfast {

template <class T>
struct Vjp {
  Sweep<T> sweep;    // A and D
  const T* x;        // (N)
  T* const* weight;  // per layer (n_out, n_in), written; null where θ is not in the Jacobian
  T* const* bias;    // per layer (n_out)
};

}  // namespace ntkfast
