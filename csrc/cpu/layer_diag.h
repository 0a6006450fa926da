// One layer's part of the diagonal, by inner products of channels or by the gradient, whichever is less work.
//
// Whoever calls keeps the inputs of the first and of the last layer for as long as cotangents of them come.
#pragma once

#include "gradient_norms.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Once the layer's inputs are there: their products, (count, pairs_of(C)), if they will be asked for.
template <class T>
void input_products(const Sweep<T>& sweep, const Group<T>& group, int l, Points points, const Stack<T>& A,
                    T* products) {
  const Layer<T>& layer = sweep.layer[l];
  if (layer.weight_jacobian != T(0) && few_units(sweep, group, l) == Few::none)
    inner_products(group.channels, points, A, layer.n_in, products);
}

// Once the cotangents of component j are there: K_ii, from the products of the inputs or from these themselves.
template <class T>
void layer_diag(const Sweep<T>& sweep, const Tile<T>& tile, int j, int l, Points points, const Stack<T>& A,
                const T* a_products, const Stack<T>& D, T* d_products) {
  const Group<T>& group = *tile.group;
  const Component& component = group.component[j];
  const Layer<T>& layer = sweep.layer[l];
  double* diag = sweep.diag + l * sweep.residual_rows + group.residual_row + tile.first * group.components + j;
  const Few few = few_units(sweep, group, l);
  if (few != Few::none) return gradient_norms(layer, component, few, points, A, D, diag, group.components);
  inner_products(component.channels, points, D, layer.n_out, d_products);
  contract_diag(layer, component, points, a_products, pairs_of(group.channels), d_products, diag, group.components);
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
