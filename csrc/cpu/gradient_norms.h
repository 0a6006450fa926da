// The diagonal's part of a network's first or last layer, from the gradient of its weights itself.
//
// The inputs of a network may be no more than half the channels of a row, and most have one output. Then the gradient,
// one vector for each of these few units, is less work than inner products of channels (inner_products.h):
//
//   ∂r_i/∂W = Σ_c D_i⁽ᶜ⁾ A_i⁽ᶜ⁾ᵀ        K_ii = Σ_u ‖Σ_c F_i⁽ᶜ⁾[u] M_i⁽ᶜ⁾‖² + ‖D_i⁽⁰⁾‖²
//
// F is the side of the few units u, M the other one: A and D for few inputs, D and A for one output.
#pragma once

#include "inner_products.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

enum class Few { none, inputs, outputs };

// Which side of layer l has few units. For each unit of the other side u of them take u (C_j + 1) multiplications for
// component j; products of channels take C_j (C_j + 1) / 2 of D, and C (C + 1) / 2 of A once for all components.
template <class T>
Few few_units(const Sweep<T>& sweep, const Group<T>& group, int l) {
  const bool first = l == 0, last = l == sweep.layers - 1;
  if ((!first && !last) || group.channels > kMostChannels) return Few::none;
  bool inputs = first;
  int of_gradients = 0;
  for (int j = 0; j < group.components; ++j) {
    const int channels = group.component[j].channels;
    inputs = inputs && 2 * sweep.layer[l].n_in <= channels;
    of_gradients += channels + 1;
  }
  if (inputs) return Few::inputs;
  return last && sweep.layer[l].n_out == 1 && of_gradients <= pairs_of(group.channels) ? Few::outputs : Few::none;
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
  const core::LayerPart part(layer);
  const int64_t width = side == Few::inputs ? layer.n_out : layer.n_in;
  for (int64_t i = points.first; i < points.first + points.count; ++i) {
    const T *few_i[C], *many_i[C];
    for (int c = 0; c < C; ++c) {
      few_i[c] = few.channel[c] + i * few.row;
      many_i[c] = many.channel[c] + i * many.row;
    }
    T sums[2];
    norms_of_point<T, C, kUnits>(few_i, many_i, width, sums);
    const double output = few_i[0][0], of_bias = side == Few::inputs ? static_cast<double>(sums[1]) : output * output;
    diag[i * stride] = part(sums[0], of_bias);
  }
}

template <class T, int C>
void gradient_norms_of(const Layer<T>& layer, const Component& component, Few side, Points points, const Stack<T>& A,
                       const Stack<T>& D, double* diag, int64_t stride) {
  const ChannelRows<T, C> inputs(A, component.channel), cotangents(D, nullptr);
  if (side == Few::outputs) return gradient_norms_fixed<T, C, 1>(layer, side, points, cotangents, inputs, diag, stride);
  if constexpr (C >= 4)
    if (layer.n_in == 2) return gradient_norms_fixed<T, C, 2>(layer, side, points, inputs, cotangents, diag, stride);
  gradient_norms_fixed<T, C, 1>(layer, side, points, inputs, cotangents, diag, stride);
}

// A layer's part of the diagonal for some points of one tile of one component, which has kMostChannels at most.
// `stride` is the distance of the component's rows in `diag`.
template <class T>
void gradient_norms(const Layer<T>& layer, const Component& component, Few side, Points points, const Stack<T>& A,
                    const Stack<T>& D, double* diag, int64_t stride) {
  with_channels(component.channels,
                [&](auto C) { gradient_norms_of<T, C>(layer, component, side, points, A, D, diag, stride); });
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
