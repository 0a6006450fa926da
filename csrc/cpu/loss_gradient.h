// Rows, gradient and, where asked for, the diagonal of the Gram matrix in one streaming sweep, for rows that are linear
// in the output channels.
#pragma once

#include "dispatch.h"

namespace ntkfast {

template <class T>
struct LossGradient {
  Sweep<T> sweep;    // points and seeds; diag may be null
  const T* offset;   // (N) or null: zero
  const T* pull;     // (N)
  T* residual;       // (N), written
  T* const* weight;  // per layer (n_out, n_in), written; null where θ is not in the Jacobian
  T* const* bias;    // per layer (n_out)
};

}  // namespace ntkfast

NTKFAST_KERNEL(loss_gradient, LossGradient)
