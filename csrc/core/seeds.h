// Seeds ∂row/∂channel of one component, a strided view of (C_j, n, n_out).
//
// Always inlined: a copy that the linker chose might be that of another instruction-set level.
#pragma once

#include "macros.h"
#include "params.h"

namespace ntkfast::core {

template <class T>
struct Seeds {
  const T* first;
  int64_t channel, point, output;  // strides

  // Channel c of the component, point i, output o.
  [[gnu::always_inline]] NTK_HD T operator()(int64_t c, int64_t i, int64_t o) const {
    return first[c * channel + i * point + o * output];
  }
};

// From some point of the group on.
template <class T>
[[gnu::always_inline]] inline Seeds<T> seeds_of(const Component& component, int64_t point) {
  const int64_t* stride = component.seed_stride;
  return {static_cast<const T*>(component.seed) + point * stride[1], stride[0], stride[1], stride[2]};
}

}  // namespace ntkfast::core
