// Columns of the Jacobian of stored factors on a CUDA device, for the layers whose part of K is the plain product J
// J'ᵀ.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

// The columns of these layers stand one layer after the other, and only parameters that the Jacobian contains have one.
template <class T>
struct Jacobian {
  const Sweep<T>& sweep;     // A and D
  const bool* use_explicit;  // per layer
  int64_t from, count;       // of the columns; count ≤ kMostColumns
  T* out;                    // (N, count), written
};

constexpr int64_t kMostColumns = int64_t{1} << 24;  // of one call, which counts them in int

// Of W[m, :] and b[m] of one layer.
template <class T>
int64_t columns_of_output(const Layer<T>& layer) {
  return (layer.weight_jacobian != T(0) ? layer.n_in : 0) + (layer.bias_jacobian != T(0) ? 1 : 0);
}

template <class T>
int64_t jacobian_columns(const Sweep<T>& sweep, const bool* use_explicit) {
  int64_t columns = 0;
  for (int l = 0; l < sweep.layers; ++l)
    if (use_explicit[l]) columns += sweep.layer[l].n_out * columns_of_output(sweep.layer[l]);
  return columns;
}

int jacobian(const Jacobian<float>& p, void* stream);
int jacobian(const Jacobian<double>& p, void* stream);

}  // namespace ntkfast::cuda
