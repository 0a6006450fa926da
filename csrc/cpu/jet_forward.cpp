#include "jet_forward.h"

#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
void jet_forward(const Sweep<T>& sweep, const Parallel& parallel) {
  const Tiling<T> tiling(sweep, parallel.threads);
  const PackedWeights<T> weights(sweep, Pass::forward, 0);
  pack(parallel, weights);
  const bool keep = sweep.A != nullptr;
  const int L = sweep.layers;
  const int64_t scratch = scratch_size(sweep, tiling.max_rows()),
                stack_size = tiling.max_rows() * padded<T>(widest(sweep));
  const int64_t slot_size = scratch + (keep ? 3 : 2) * stack_size;  // A twice, in turn, and Z
  const Buffer<T> slots(parallel.threads * slot_size);
  const Buffer<Stack<T>> views(parallel.threads * (2 * L + 1));
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task);
    const int channels = tile.channels();
    T* memory = slots.get() + slot * slot_size;
    T* stacks = memory + scratch;
    Stack<T>* A = views.get() + slot * (2 * L + 1);
    Stack<T>* Z = A + L + 1;
    for (int l = 0; l < L; ++l) {
      A[l] = local_stack(stacks + (l % 2) * stack_size, tile.count, sweep.layer[l].n_in);
      Z[l] = keep && sweep.Z[l] != nullptr ? local_stack(stacks + 2 * stack_size, tile.count, sweep.layer[l].n_out)
                                           : Stack<T>{};
    }
    const int64_t outputs = sweep.layer[L - 1].n_out;
    A[L] = local_stack(stacks + (L % 2) * stack_size, tile.count, outputs);
    forward_tile(
        sweep, L, weights, tile, TileStacks<T>{A, Z, nullptr}, memory,
        [&](int l) {
          if (l == L)
            copy_stack(channels, tile.count, outputs, A[L], stack_of(sweep.out, tile.group->row, tile, outputs));
          if (!keep) return;
          if (l < L) {
            const int64_t n_in = sweep.layer[l].n_in;
            copy_stack(channels, tile.count, n_in, A[l], stack_of(sweep.A[l], tile.group->row, tile, n_in));
          }
          if (l > 0 && sweep.Z[l - 1] != nullptr) {
            const int64_t n_out = sweep.layer[l - 1].n_out;
            copy_stack(channels, tile.count, n_out, Z[l - 1], stack_of(sweep.Z[l - 1], tile.group->row, tile, n_out));
          }
        },
        [](int, Points) {});
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(jet_forward, Sweep)
