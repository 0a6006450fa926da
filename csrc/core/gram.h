// The arguments of a Gram matrix K = J J'ᵀ of stored factors.
#pragma once

#include "params.h"

namespace ntkfast {

template <class T>
struct Gram {
  Sweep<T> x, y;             // A and D; the same when symmetric
  bool symmetric;            // then one triangle is computed and mirrored
  const bool* use_explicit;  // per layer: form the layer's Jacobian (chunk by chunk) instead
  int64_t chunk;             // columns of it at a time
  int together;              // k: K[(i, j), (i', j)] is summed over the k components of every group; 1: it is not
  T* out;                    // (N/k, M/k), rows and columns point-major, written
};

}  // namespace ntkfast
