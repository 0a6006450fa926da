// The activation jet: one elementwise activation on all channels of a jet, and its pull-back (faa_di_bruno.h).
// What csrc/ops hands to csrc/cpu and csrc/cuda.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "activation.h"

namespace ntkfast::core {

template <class T>
struct ActivationJet {
  const T* z;                 // (C, n, w), C = 1 + F + M
  const T* g;                 // (C, n, w) cotangents on h; null in the push-forward
  const T* omega;             // (1|n, M, F) weights of the second derivatives in the collapsed channels
  T* out;                     // (C, n, w): h, or z̄
  int64_t n, w;               // points, features
  int64_t channel_stride;     // elements from one channel to the next
  int64_t omega_stride;       // elements from one point's weights to the next; 0 where all points share them
  int directions, collapsed;  // F, M
  Activation activation;
  ActivationParams<T> params;
};

// Calls visitor(std::integral_constant<Activation, A>) for the activation of that number; false if there is none.
NTK_HD_VISITOR
template <class Visitor, int... Number>
NTK_HD bool visit_activation(Activation activation, Visitor visitor, std::integer_sequence<int, Number...>) {
  return ((static_cast<int>(activation) == Number &&
           (visitor(std::integral_constant<Activation, static_cast<Activation>(Number)>{}), true)) ||
          ...);
}

NTK_HD_VISITOR
template <class Visitor>
NTK_HD bool visit_activation(Activation activation, Visitor visitor) {
  return visit_activation(activation, visitor, std::make_integer_sequence<int, kActivations>{});
}

}  // namespace ntkfast::core
