// Where a sweep turns: the last hidden layer of a network with one output, pushed forward and pulled back in one go.
//
// The seeds s of a linear row are known before the output, and of one output they come down to the layer below as
//
//   g_c = s_c w        w: the last layer's effective weights
//
// so that z gives h and z̄ while it is in registers. Only the last layer asks for h, and of it for one vector a point,
// which takes its place:
//
//   q = Σ_c s_c h_c = ∂r/∂w        s₀ = ∂r/∂b        r = ⟨w, q⟩ + s₀ b        K_ii = ‖q_i‖² + s₀²
#pragma once

#include "../core/seeds.h"
#include "inner_products.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
struct Turn {
  Epilogue<T> epilogue;  // of the last hidden layer and the group's one component
  const Layer<T>* last;
  Stack<T> q;  // of one channel
};

template <class T>
using TurnFunction = void (*)(const Turn<T>& turn, T* panel, Columns columns, Points points);

// q, and to = z̄, from pre-activations z, which lack the bias.
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

// s₀ of a point of the tile.
template <class T>
T seed_of_value(const Turn<T>& turn, int64_t i) {
  return core::seeds_of<T>(*turn.epilogue.component, turn.epilogue.tile->first)(0, i, 0);
}

// ⟨w, q⟩ + s₀ b of a point.
template <class T>
T turned_row(const Turn<T>& turn, int64_t i) {
  const Layer<T>& last = *turn.last;
  const T row = last.weight_scale * dot(last.weight, turn.q.data + i * turn.q.row, last.n_in);
  return last.bias == nullptr ? row : row + last.bias_scale * last.bias[0] * seed_of_value(turn, i);
}

// The last layer's part of the diagonal.
template <class T>
void turn_diag(const Turn<T>& turn, double* diag) {
  const Layer<T>& last = *turn.last;
  const core::LayerPart part(last);
  for (int64_t i = 0; i < turn.epilogue.tile->count; ++i) {
    const T* q = turn.q.data + i * turn.q.row;
    const double seed = seed_of_value(turn, i);
    diag[i] = part(dot(q, q, last.n_in), seed * seed);
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
