// What the epilogues' loops over vectors and points have in common.
#pragma once

#include "../core/activation_jet.h"
#include "../core/faa_di_bruno.h"
#include "activation_panel.h"
#include "elementary.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int kAny = -1;

// Loops over channels unroll where their number N is known.
template <int N>
auto count_of(int number) {
  if constexpr (N == kAny) return number;
  else return std::integral_constant<int, N>{};
}

// Function<A, F, M>::value for the commonest jets: value; value and a first derivative; one, two or three directions
// and a collapsed channel; and for all others.
template <template <core::Activation, int, int> class Function, core::Activation A>
auto function_of_counts(int directions, int collapsed) {
  if (directions == 0 && collapsed == 0) return Function<A, 0, 0>::value;
  if (directions == 0 && collapsed == 1) return Function<A, 0, 1>::value;
  if (directions == 1 && collapsed == 1) return Function<A, 1, 1>::value;
  if (directions == 2 && collapsed == 1) return Function<A, 2, 1>::value;
  if (directions == 3 && collapsed == 1) return Function<A, 3, 1>::value;
  return Function<A, kAny, kAny>::value;
}

// The same for an activation that is known when it is called.
template <class Pointer, template <core::Activation, int, int> class Function>
Pointer function_of(core::Activation activation, int directions, int collapsed) {
  Pointer found = nullptr;
  core::visit_activation(
      activation, [&](auto tag) { found = function_of_counts<Function, decltype(tag)::value>(directions, collapsed); });
  return found;
}

// Runs body(vector offset, columns from there on) for each vector of a panel. There is room for all of a last one.
template <class T, class Body>
void for_each_vector(Columns columns, const Body& body) {
  for (int64_t v = 0; v < columns.width; v += kLanes<T>) body(v, columns.width - v);
}

// z₀ of all points, with the bias, or the base value of σ (core::kStashesBase) takes the place of the products'. Before
// anything else: an elementary function is a long chain of operations, of which the processor has several under way
// only if little stands between them.
template <class T, core::Activation A>
void keep_values(T* z, int64_t row, Vec<T> bias, core::ActivationParams<T> params, Points points) {
  for (int64_t i = points.first; i < points.first + points.count; ++i) {
    T* value = z + i * row;
    Vec<T> kept = load<T>(value) + bias;
    if constexpr (core::kStashesBase<A>) kept = core::base<A, Elementary>(kept, params).a;
    store<T>(value, kept);
  }
}

// σ and its derivatives from what is kept of the value.
template <class T, core::Activation A>
core::Sigma<Vec<T>> sigma_of(Vec<T> kept, core::ActivationParams<T> params) {
  core::Base<Vec<T>> base{kept, Vec<T>{}};
  if constexpr (!core::kStashesBase<A>) base = core::base<A, Elementary>(kept, params);
  return core::sigma<A>(kept, base, params);
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
