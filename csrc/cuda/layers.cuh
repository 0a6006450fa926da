// Layers as a kernel over stored factors sees them: a table by value (limits.h).
#pragma once

#include "launch.cuh"
#include "limits.h"

namespace ntkfast::cuda {

template <class T>
struct FactorLayer {
  const T *A, *D;
  int64_t n_in, n_out;
  T weight_jacobian, bias_jacobian;
  int number;
};

template <class T>
FactorLayer<T> factor_layer(const Sweep<T>& sweep, int l) {
  const Layer<T>& layer = sweep.layer[l];
  return {sweep.A[l], sweep.D[l], layer.n_in, layer.n_out, layer.weight_jacobian, layer.bias_jacobian, l};
}

// Runs body(first, count) for the items 0 … count − 1 in pieces of at most kMaxLayers, at least once, and stops at an
// error.
template <class Body>
int for_each_piece(int count, const Body& body) {
  int first = 0;
  do {
    const int code = body(first, count - first < kMaxLayers ? count - first : kMaxLayers);
    if (code != cudaSuccess) return code;
    first += kMaxLayers;
  } while (first < count);
  return cudaSuccess;
}

}  // namespace ntkfast::cuda
