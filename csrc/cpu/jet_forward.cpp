#include "jet_forward.h"

#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Per-slot stacks of a sweep whose A is not kept: two that alternate.
template <class T>
int64_t widest_input(const Sweep<T>& sweep) {
  int64_t width = 1;
  for (int l = 0; l < sweep.layers; ++l) width = sweep.layer[l].n_in > width ? sweep.layer[l].n_in : width;
  return width;
}

}  // namespace

template <class T>
void jet_forward(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const PackedWeights<T> weights(sweep, Direction::forward, 0, parallel);
  const bool keep = sweep.A != nullptr;
  const int L = sweep.layers;
  const int64_t scratch_size = tiling.max_rows() * kPanel<T>, local_size = keep ? 0 : tiling.max_rows() * widest_input(sweep);
  const int64_t slot_size = scratch_size + 2 * local_size;
  const Buffer<T> slots(parallel.threads * slot_size);
  const Buffer<Stack<T>> views(parallel.threads * (2 * L + 1));
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task);
    const Group<T>& group = *tile.group;
    T* scratch = slots.get() + slot * slot_size;
    Stack<T>* A = views.get() + slot * (2 * L + 1);
    Stack<T>* Z = A + L + 1;
    for (int l = 0; l < L; ++l) {
      const int64_t n_in = sweep.layer[l].n_in, n_out = sweep.layer[l].n_out, first = group.row + tile.first;
      A[l] = keep ? Stack<T>{sweep.A[l] + first * n_in, group.n * n_in, n_in}
                  : Stack<T>{scratch + scratch_size + (l % 2) * local_size, tile.count * n_in, n_in};
      Z[l] = keep && sweep.Z[l] != nullptr ? Stack<T>{sweep.Z[l] + first * n_out, group.n * n_out, n_out} : Stack<T>{nullptr, 0, 0};
    }
    const int64_t o = sweep.layer[L - 1].n_out;
    A[L] = {sweep.out + (group.row + tile.first) * o, group.n * o, o};
    forward_tile(sweep, weights, tile, TileStacks<T>{A, Z, nullptr}, scratch, [](int) {});
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(jet_forward, Sweep)
