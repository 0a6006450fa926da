#include "factor_diag.h"

#include "layer_diag.h"
#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
void factor_diag_tile(const Sweep<T>& sweep, const Tile<T>& tile, int l, T* a_products, T* d_products) {
  const Group<T>& group = *tile.group;
  const Layer<T>& layer = sweep.layer[l];
  const Stack<T> A = stack_of(sweep.A[l], group.row, tile, layer.n_in);
  const Points points{0, tile.count};
  input_products(sweep, group, l, points, A, a_products);
  for (int j = 0; j < group.components; ++j) {
    const Stack<T> D = stack_of(sweep.D[l], group.component[j].row, tile, layer.n_out);
    layer_diag(sweep, tile, j, l, points, A, a_products, D, d_products);
  }
}

template <class T>
void no_diag(const Sweep<T>& sweep, const Tile<T>& tile, int l) {
  const int64_t k = tile.group->components;
  double* diag = sweep.diag + l * sweep.residual_rows + tile.group->residual_row + tile.first * k;
  for (int64_t i = 0; i < tile.count * k; ++i) diag[i] = 0;
}

}  // namespace

template <class T>
void factor_diag(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const int64_t size = tiling.max_points() * pairs_of(max_channels(sweep));
  const Buffer<T> memory(parallel.threads * 2 * size);
  for_each_task(parallel, tiling.tiles() * sweep.layers, [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task / sweep.layers);
    const int l = static_cast<int>(task % sweep.layers);
    T* products = memory.get() + slot * 2 * size;
    if (!tile.group->selected) return;
    if (sweep.layer[l].active) factor_diag_tile(sweep, tile, l, products, products + size);
    else no_diag(sweep, tile, l);
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(factor_diag, Sweep)
