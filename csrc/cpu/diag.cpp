#include "diag.h"

#include "layer_diag.h"
#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Tile-local memory of one slot: the inputs of the network, which the end of the backward sweep asks for, two A and two
// D stacks that alternate from layer to layer, one Z stack a layer, the inner products of every A and of the current D.
template <class T>
struct DiagLayout : SlotLayout {
  int64_t scratch, inputs, A[2], D[2], Z, a_products, d_products;

  DiagLayout(const Sweep<T>& sweep, int64_t rows, int64_t points, int max_channels) {
    int64_t z = 0;
    for (int l = 0; l < sweep.layers; ++l) z += sweep.layer[l].keeps_stash ? padded<T>(sweep.layer[l].n_out) : 0;
    scratch = take(scratch_size(sweep, rows));
    inputs = take(rows * padded<T>(sweep.layer[0].n_in));
    for (int64_t& first : A) first = take(rows * padded<T>(widest_output(sweep)));
    for (int64_t& first : D) first = take(rows * padded<T>(widest_apart(sweep)));
    Z = take(rows * z);
    a_products = take(sweep.layers * points * pairs_of(max_channels));
    d_products = take(points * pairs_of(max_channels));
  }
};

template <class T>
void diag_tile(const Sweep<T>& sweep, const PackedWeights<T>& forward, const PackedWeights<T>& backward, int first,
               const Tile<T>& tile, const DiagLayout<T>& slot, T* memory, Stack<T>* views) {
  const int L = sweep.layers, channels = tile.channels(), a_pairs = pairs_of(channels);
  const Group<T>& group = *tile.group;
  const TileStacks<T> stacks{views, views + L + 1, views + 2 * L + 1};
  const int64_t rows = channels * tile.count;
  T* z = memory + slot.Z;
  for (int l = 0; l < L; ++l) {
    const int64_t n_in = sweep.layer[l].n_in, n_out = sweep.layer[l].n_out;
    stacks.A[l] = local_stack(memory + (l == 0 ? slot.inputs : slot.A[l % 2]), tile.count, n_in);
    stacks.D[l] = local_stack(memory + slot.D[l % 2], tile.count, n_out);
    const bool stash = sweep.layer[l].keeps_stash;
    stacks.Z[l] = local_stack(stash ? z : nullptr, tile.count, n_out);
    z += stash ? rows * padded<T>(n_out) : 0;
  }
  const int64_t o = sweep.layer[L - 1].n_out;
  stacks.A[L] = local_stack(memory + slot.A[L % 2], tile.count, o);
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
  const int first = sweep.first_active, L = sweep.layers;
  const PackedWeights<T> forward(sweep, Pass::forward, 0), backward(sweep, Pass::backward, first + 1);
  pack(parallel, forward, backward);
  const DiagLayout<T> slot(sweep, tiling.max_rows(), tiling.max_points(), max_channels(sweep));
  const Buffer<T> memory(parallel.threads * slot.total);
  const Buffer<Stack<T>> views(parallel.threads * (3 * L + 1));
  for (int64_t i = 0; i < first * sweep.residual_rows; ++i) sweep.diag[i] = 0;
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int s) {
    diag_tile(sweep, forward, backward, first, tiling.tile(task), slot, memory.get() + s * slot.total,
              views.get() + s * (3 * L + 1));
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(diag, Sweep)
