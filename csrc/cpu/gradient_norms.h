// The diagonal's part of a network's first or last layer, from the gradient of its weights itself.
//
// Inputs or outputs of a network may be no more than half the channels of a row. Then its gradient, one vector for each of
// these few units, costs no more than the inner products of channels (inner_products.h), and one sum instead of many:
//
//   ∂r_i/∂W = Σ_c D_i⁽ᶜ⁾ A_i⁽ᶜ⁾ᵀ        K_ii = Σ_u ‖Σ_c F_i⁽ᶜ⁾[u] M_i⁽ᶜ⁾‖² + ‖D_i⁽⁰⁾‖²
//
// F is the side of the few units u, M the other one: A and D for few inputs, D and A for few outputs.
#pragma once

#include "inner_products.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

enum class Few { none, inputs, outputs };

// Which side of layer l has few units for every component of a group: u units take u (C + 1) products for each unit of
// the other side, pairs of channels C (C + 1) / 2.
template <class T>
Few few_units(const Sweep<T>& sweep, const Group<T>& group, int l) {
  int least = group.channels;
  for (int j = 0; j < group.components; ++j)
    least = group.component[j].channels < least ? group.component[j].channels : least;
  if (group.channels > kMostFixed) return Few::none;
  if (l == 0 && 2 * sweep.layer[l].n_in <= least) return Few::inputs;
  if (l == sweep.layers - 1 && 2 * sweep.layer[l].n_out <= least) return Few::outputs;
  return Few::none;
}

// The channels of a component in a stack: number c of point i stands at channel[c] + i·row.
template <class T, int C>
struct ChannelRows {
  const T* channel[C];
  int64_t row;

  ChannelRows(const Stack<T>& stack, const int* number) : row(stack.row) {
    for (int c = 0; c < C; ++c) channel[c] = stack.data + (number == nullptr ? c : number[c]) * stack.channel;
  }
};

// Σ_u ‖Σ_c few⁽ᶜ⁾[u] many⁽ᶜ⁾‖² and ‖many⁽⁰⁾‖² of one point, to sums[0] and sums[1].
template <class T, int C, int kUnits>
void norms_of_point(const T* const (&few)[C], const T* const (&many)[C], int64_t width, T* sums) {
  Vec<T> squares[kUnits + 1] = {};
  const auto add = [&](int64_t j, auto read) {
    Vec<T> v[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) v[c] = read(many[c] + j);
#pragma GCC unroll 2
    for (int u = 0; u < kUnits; ++u) {
      Vec<T> gradient = few[0][u] * v[0];
#pragma GCC unroll 8
      for (int c = 1; c < C; ++c) gradient += few[c][u] * v[c];
      squares[u] += gradient * gradient;
    }
    squares[kUnits] += v[0] * v[0];
  };
  int64_t j = 0;
  for (; j + kLanes<T> <= width; j += kLanes<T>) add(j, [](const T* p) { return load<T>(p); });
  const int rest = static_cast<int>(width - j);
  if (rest > 0) add(j, [rest](const T* p) { return load_partial<T>(p, rest); });
  for (int u = 1; u < kUnits; ++u) squares[0] += squares[u];
  const Vec<T> both[] = {squares[0], squares[kUnits]};
  store_sums<2>(both, sums);
}

template <class T, int C, int kUnits>
void gradient_norms_fixed(const Layer<T>& layer, Few side, Points points, const ChannelRows<T, C>& few,
                          const ChannelRows<T, C>& many, double* diag, int64_t stride) {
  const double weight = static_cast<double>(layer.weight_jacobian) * layer.weight_jacobian;
  const double bias = static_cast<double>(layer.bias_jacobian) * layer.bias_jacobian;
  const int64_t width = side == Few::inputs ? layer.n_out : layer.n_in;
  for (int64_t i = points.first; i < points.first + points.count; ++i) {
    const T *few_i[C], *many_i[C];
    for (int c = 0; c < C; ++c) {
      few_i[c] = few.channel[c] + i * few.row;
      many_i[c] = many.channel[c] + i * many.row;
    }
    T sums[2];
    norms_of_point<T, C, kUnits>(few_i, many_i, width, sums);
    double value = side == Few::inputs ? sums[1] : 0;
    for (int u = 0; u < kUnits && side == Few::outputs; ++u) value += static_cast<double>(few_i[0][u]) * few_i[0][u];
    diag[i * stride] =
        (weight != 0 ? weight * sums[0] : 0.0) + (bias != 0 ? bias * value : 0.0);  // either may be infinite
  }
}

template <class T, int C>
void gradient_norms_of(const Layer<T>& layer, const Component& component, Few side, Points points, const Stack<T>& A,
                       const Stack<T>& D, double* diag, int64_t stride) {
  const ChannelRows<T, C> inputs(A, component.channel), cotangents(D, nullptr);
  const ChannelRows<T, C>&few = side == Few::inputs ? inputs : cotangents,
                       &many = side == Few::inputs ? cotangents : inputs;
  if constexpr (C >= 4)
    if ((side == Few::inputs ? layer.n_in : layer.n_out) == 2)
      return gradient_norms_fixed<T, C, 2>(layer, side, points, few, many, diag, stride);
  gradient_norms_fixed<T, C, 1>(layer, side, points, few, many, diag, stride);
}

// The layer's part of the diagonal for some points of one tile of one component; arguments as of contract_diag.
template <class T>
void gradient_norms(const Layer<T>& layer, const Component& component, Few side, Points points, const Stack<T>& A,
                    const Stack<T>& D, double* diag, int64_t stride) {
  switch (component.channels) {
    case 2: return gradient_norms_of<T, 2>(layer, component, side, points, A, D, diag, stride);
    case 3: return gradient_norms_of<T, 3>(layer, component, side, points, A, D, diag, stride);
    case 4: return gradient_norms_of<T, 4>(layer, component, side, points, A, D, diag, stride);
    case 5: return gradient_norms_of<T, 5>(layer, component, side, points, A, D, diag, stride);
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
