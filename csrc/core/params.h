// What the native operations work on, as plain pointers and sizes. No code here: these types are shared by the
// translation units of every instruction-set level.
//
// Row order of the ragged stacks. A group of n points whose jet has C channels owns C·n rows of every layer's input
// stack A and stash Z, channel by channel: row = group.row + c·n + i. Component j of the group needs C_j of these
// channels and owns C_j·n rows of every cotangent stack D: row = component.row + c·n + i. Residual rows are
// point-major: group.residual_row + i·k + j.
#pragma once

#include <cstdint>

#include "activation.h"

namespace ntkfast {

template <class T>
struct Layer {
  const T* weight;  // (n_out, n_in)
  const T* bias;    // (n_out) or null
  int64_t n_in, n_out;
  core::Activation activation;  // follows the linear map
  core::ActivationParams<T> activation_params;
  T weight_scale, bias_scale;        // effective weight = scale · weight
  T weight_jacobian, bias_jacobian;  // the same scales for θ that the Jacobian contains, else 0
  bool keeps_stash;                  // whether the pull-back asks for its Z: all but a last layer without activation
  bool active;                       // whether the Jacobian contains any of its parameters
};

enum class Pass { forward, backward };  // of a sweep

struct Component {
  int64_t row;         // first row in the D stacks
  int channels;        // C_j = 1 + directions + collapsed
  int directions;      // F_j
  int collapsed;       // M_j
  const int* channel;  // (C_j) group channel of each, strictly ascending: 0, then directions, then collapsed
  const void* seed;    // ∂row/∂channel, (C_j, n, n_out) strided; null in forward sweeps
  int64_t seed_stride[3];
};

template <class T>
struct Group {
  int64_t n;
  int directions, collapsed;          // F, M
  int channels;                       // C = 1 + F + M
  const T* points;                    // (n, d), standardised
  const T* beta;                      // (1|n, F+M, d): layer-0 input of channels 1 … F+M
  const T* omega;                     // (1|n, M, F)
  int64_t beta_stride, omega_stride;  // 0 where constant over points
  int components;
  const Component* component;
  int64_t row;           // first row in the A and Z stacks
  int64_t residual_row;  // first residual row
  bool selected;         // whether its rows take part; its stacks are there either way
};

template <class T>
struct Sweep {
  int layers;
  int first_active;  // the first active layer, or else the last one: backward sweeps stop there
  const Layer<T>* layer;
  int groups;
  const Group<T>* group;
  int64_t rows;            // of A and Z
  int64_t cotangent_rows;  // of D
  int64_t residual_rows;   // N, of the selected groups
  int64_t tile_rows;       // stack rows of one tile; 0: as many as suit the cache
  T* const* A;             // per layer (rows, n_in); null entries in streaming sweeps
  T* const* Z;             // per layer (rows, n_out); null where a layer keeps none
  T* const* D;             // per layer (cotangent_rows, n_out)
  T* out;                  // (rows, n_out of the last layer): output channels
  double* diag;            // (layers, residual_rows)
};

}  // namespace ntkfast
