#include "jet_backward.h"

#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
void jet_backward(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const int first = first_active(sweep), L = sweep.layers;
  const PackedWeights<T> weights(sweep, Direction::backward, first + 1, parallel);
  const int64_t scratch_size = tiling.max_rows() * kPanel<T>;
  const Buffer<T> scratch(parallel.threads * scratch_size);
  const Buffer<Stack<T>> views(parallel.threads * 2 * L);
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task);
    const Group<T>& group = *tile.group;
    Stack<T>* Z = views.get() + slot * 2 * L;
    Stack<T>* D = Z + L;
    for (int j = 0; j < group.components; ++j) {
      const Component& component = group.component[j];
      for (int l = 0; l < L; ++l) {
        const int64_t n_out = sweep.layer[l].n_out;
        Z[l] = sweep.Z[l] != nullptr ? Stack<T>{sweep.Z[l] + (group.row + tile.first) * n_out, group.n * n_out, n_out} : Stack<T>{nullptr, 0, 0};
        D[l] = {sweep.D[l] + (component.row + tile.first) * n_out, group.n * n_out, n_out};
      }
      backward_tile(sweep, weights, tile, component, first, TileStacks<T>{nullptr, Z, D}, scratch.get() + slot * scratch_size, [](int) {});
    }
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(jet_backward, Sweep)
