// A layer's part of the diagonal, from what its weight and its bias add to it:
//
//   w² Σ_cc' ⟨D⁽ᶜ⁾, D⁽ᶜ'⁾⟩ ⟨A⁽ᶜ⁾, A⁽ᶜ'⁾⟩ + b² ‖D⁽⁰⁾‖²        w, b: the scales of both in the Jacobian; 0: not in it
//
// Always inlined: a copy that the linker chose might be that of another instruction-set level.
#pragma once

#include "macros.h"
#include "params.h"

namespace ntkfast::core {

struct LayerPart {
  double weight, bias;  // w², b²

  template <class T>
  [[gnu::always_inline]] NTK_HD explicit LayerPart(const Layer<T>& layer)
      : LayerPart(layer.weight_jacobian, layer.bias_jacobian) {}

  [[gnu::always_inline]] NTK_HD LayerPart(double w, double b) : weight(w * w), bias(b * b) {}

  // Neither may spoil the other where it is infinite and its parameter frozen.
  [[gnu::always_inline]] NTK_HD double operator()(double of_weight, double of_bias) const {
    return (weight != 0 ? weight * of_weight : 0.0) + (bias != 0 ? bias * of_bias : 0.0);
  }
};

// A squared norm from its rounded parts: where channels cancel, these may add up to less than zero.
[[gnu::always_inline]] NTK_HD double squared_norm(double parts) { return parts < 0 ? 0.0 : parts; }

}  // namespace ntkfast::core
