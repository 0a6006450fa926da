// The arguments of a sweep of rows that are linear in the output channels.
#pragma once

#include "params.h"

namespace ntkfast {

template <class T>
struct LinearSweep {
  Sweep<T> sweep;    // points and seeds; diag, A and D may be null
  const T* offset;   // (N) or null: zero
  const T* pull;     // (N) or null: zero
  T* residual;       // (N), written
  T* const* weight;  // per layer (n_out, n_in), written; null where θ is not in the Jacobian
  T* const* bias;    // per layer (n_out)
};

}  // namespace ntkfast
