#include "jet_backward.h"

#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
void jet_backward(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const int first = sweep.first_active, L = sweep.layers;
  const PackedWeights<T> weights(sweep, Pass::backward, first + 1);
  pack(parallel, weights);
  const int64_t scratch = scratch_size(sweep, tiling.max_rows()),
                stack_size = tiling.max_rows() * padded<T>(widest(sweep));
  const int64_t slot_size = scratch + 3 * stack_size;  // D twice, in turn, and Z
  const Buffer<T> slots(parallel.threads * slot_size);
  const Buffer<Stack<T>> views(parallel.threads * 2 * L);
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task);
    T* memory = slots.get() + slot * slot_size;
    T* stacks = memory + scratch;
    Stack<T>* Z = views.get() + slot * 2 * L;
    Stack<T>* D = Z + L;
    for (int l = 0; l < L; ++l) {
      Z[l] =
          sweep.Z[l] != nullptr ? local_stack(stacks + 2 * stack_size, tile.count, sweep.layer[l].n_out) : Stack<T>{};
      D[l] = local_stack(stacks + (l % 2) * stack_size, tile.count, sweep.layer[l].n_out);
    }
    // What pads the rows is computed on, too: what happens to lie there may be subnormal, which is slow.
    const auto fetch_stash = [&](int l) {
      if (sweep.Z[l] == nullptr) return;
      const int64_t n_out = sweep.layer[l].n_out, row = Z[l].row;
      copy_stack(tile.channels(), tile.count, n_out, stack_of(sweep.Z[l], tile.group->row, tile, n_out), Z[l]);
      for (int64_t r = 0; r < tile.channels() * tile.count; ++r)
        for (int64_t j = n_out; j < row; ++j) Z[l].data[r * row + j] = T(0);
    };
    for (int j = 0; j < tile.group->components; ++j) {
      const Component& component = tile.group->component[j];
      fetch_stash(L - 1);
      backward_tile(
          sweep, weights, tile, component, first, TileStacks<T>{nullptr, Z, D}, memory,
          [&](int l) {
            const int64_t n_out = sweep.layer[l].n_out;
            copy_stack(component.channels, tile.count, n_out, D[l], stack_of(sweep.D[l], component.row, tile, n_out));
            if (l > first) fetch_stash(l - 1);
          },
          [](int, Points) {});
    }
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(jet_backward, Sweep)
