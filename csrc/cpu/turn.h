// Where a sweep turns: the last hidden layer of a network with one output, pushed forward and pulled back in one go.
//
// The seeds s of a linear row are known before the output, and of one output they come down to the layer below as
//
//   g_c = s_c w        w: the last layer's effective weights
//
// so that z gives h and z̄ while it is in registers. Only the last layer's gradient asks for h, which is not stored:
//
//   ∂r/∂w = Σ_c s_c h_c        ∂r/∂b = s₀        K_ii = ‖∂r_i/∂w‖² + s₀²
#pragma once

#include "activation_panel.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
struct Turn {
  Epilogue<T> epilogue;  // of the last hidden layer and the group's one component
  const Layer<T>* last;
  T* squares;  // (count, lanes of a vector): ‖∂r_i/∂w‖² lane by lane, added up panel after panel
};

template <class T>
using TurnFunction = void (*)(const Turn<T>& turn, T* panel, Columns columns, Points points);

// to = z̄ from pre-activations z, which lack the bias.
template <class T>
TurnFunction<T> turn_function(const Turn<T>& turn);

namespace {

// Whether the sweep of a group may turn: one output and no activation on it, one component that has all the channels,
// and cotangents asked for below the last layer.
template <class T>
bool can_turn(const Sweep<T>& sweep, const Group<T>& group) {
  const Layer<T>& last = sweep.layer[sweep.layers - 1];
  return sweep.first_active < sweep.layers - 1 && !last.keeps_stash && last.n_out == 1 && group.components == 1 &&
         group.component[0].channels == group.channels;
}

// The last layer's part of the diagonal.
template <class T>
void turn_diag(const Turn<T>& turn, double* diag) {
  const Layer<T>& last = *turn.last;
  const Tile<T>& tile = *turn.epilogue.tile;
  const Component& component = *turn.epilogue.component;
  const double weight = static_cast<double>(last.weight_jacobian) * last.weight_jacobian;
  const double bias = static_cast<double>(last.bias_jacobian) * last.bias_jacobian;
  for (int64_t i = 0; i < tile.count; ++i) {
    const double seed = static_cast<const T*>(component.seed)[(tile.first + i) * component.seed_stride[1]];
    const double square = sum(load<T>(turn.squares + i * kLanes<T>));
    // Neither may spoil the other where it is infinite and its parameter frozen.
    diag[i] = (weight != 0 ? weight * square : 0.0) + (bias != 0 ? bias * seed * seed : 0.0);
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
