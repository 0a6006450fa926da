#include "factor_diag.h"

#include "gradient_norms.h"
#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
void factor_diag_tile(const Sweep<T>& sweep, const Tile<T>& tile, int l, T* a_products, T* d_products) {
  const Group<T>& group = *tile.group;
  const Layer<T>& layer = sweep.layer[l];
  const int channels = tile.channels();
  const Stack<T> A{sweep.A[l] + (group.row + tile.first) * layer.n_in, group.n * layer.n_in, layer.n_in};
  const Points points{0, tile.count};
  const Few few = few_units(sweep, group, l);
  if (few == Few::none && layer.weight_jacobian != T(0)) inner_products(channels, points, A, layer.n_in, a_products);
  for (int j = 0; j < group.components; ++j) {
    const Component& component = group.component[j];
    const Stack<T> D{sweep.D[l] + (component.row + tile.first) * layer.n_out, group.n * layer.n_out, layer.n_out};
    double* to = sweep.diag + l * sweep.residual_rows + group.residual_row + tile.first * group.components + j;
    if (!layer.active) {
      for (int64_t i = 0; i < tile.count; ++i) to[i * group.components] = 0;
      continue;
    }
    if (few != Few::none) {
      gradient_norms(layer, component, few, points, A, D, to, group.components);
      continue;
    }
    inner_products(component.channels, points, D, layer.n_out, d_products);
    contract_diag(layer, component, points, a_products, pairs_of(channels), d_products, to, group.components);
  }
}

}  // namespace

template <class T>
void factor_diag(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const int64_t size = tiling.max_points() * pairs_of(max_channels(sweep));
  const Buffer<T> memory(parallel.threads * 2 * size);
  for_each_task(parallel, tiling.tiles() * sweep.layers, [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task / sweep.layers);
    T* products_of_slot = memory.get() + slot * 2 * size;
    if (tile.group->selected)
      factor_diag_tile(sweep, tile, static_cast<int>(task % sweep.layers), products_of_slot, products_of_slot + size);
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(factor_diag, Sweep)
