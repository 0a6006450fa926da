#include "diag.h"

#include "tile_layout.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
void diag_tile(const Sweep<T>& sweep, const PackedWeights<T>& forward, const PackedWeights<T>& backward,
               const Tile<T>& tile, const TileLayout<T>& slot, T* memory, Stack<T>* views) {
  const int L = sweep.layers, first = sweep.first_active, a_pairs = pairs_of(tile.channels());
  const Group<T>& group = *tile.group;
  const TileStacks<T> stacks = slot.stacks(tile.count, memory, views);
  const auto a_products = [&](int l) { return memory + slot.a_products + l * tile.count * a_pairs; };
  T* scratch = memory + slot.scratch;
  const auto nothing = [](int) {};
  const auto of_inputs = [&](int l, Points points) {
    if (l >= first && l < L) input_products(sweep, group, l, points, stacks.A[l], a_products(l));
  };
  const auto of_cotangents = [&](int j) {
    return [&, j](int l, Points points) {
      layer_diag(sweep, tile, j, l, points, stacks.A[l], a_products(l), stacks.D[l], memory + slot.d_products);
    };
  };
  if (can_turn(sweep, group)) {
    const Turn<T> turn = turn_tile(sweep, forward, tile, stacks, scratch, of_inputs);
    turn_diag(turn, sweep.diag + (L - 1) * sweep.residual_rows + group.residual_row + tile.first);
    return descend_tile(sweep, backward, tile, group.component[0], L - 2, first, stacks, scratch, nothing,
                        of_cotangents(0));
  }
  // The seeds are given: the outputs matter only if an activation has to be pulled back through.
  const int needed = sweep.layer[L - 1].keeps_stash ? L : L - 1;
  forward_tile(sweep, needed, forward, tile, stacks, scratch, nothing, of_inputs);
  for (int j = 0; j < group.components; ++j) {
    if (j + 1 == group.components) pull_in_place(sweep, stacks);
    backward_tile(sweep, backward, tile, group.component[j], first, stacks, scratch, nothing, of_cotangents(j));
  }
}

}  // namespace

template <class T>
void diag(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const int first = sweep.first_active;
  const PackedWeights<T> forward(sweep, Pass::forward, 0), backward(sweep, Pass::backward, first + 1);
  pack(parallel, forward, backward);
  Places places;
  const TileLayout<T> slot(sweep, tiling, false, places);
  const Buffer<T> memory(parallel.threads * places.total);
  const Buffer<Stack<T>> views(parallel.threads * slot.views());
  for (int64_t i = 0; i < first * sweep.residual_rows; ++i) sweep.diag[i] = 0;
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int s) {
    diag_tile(sweep, forward, backward, tiling.tile(task), slot, memory.get() + s * places.total,
              views.get() + s * slot.views());
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(diag, Sweep)
