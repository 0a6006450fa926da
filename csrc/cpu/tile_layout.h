// Where the stacks of a tile stand in the memory of one slot, for sweeps that go there and back without leaving it.
#pragma once

#include "layer_diag.h"
#include "sweep.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Parts of memory one after the other, each from a cache line on.
struct Places {
  int64_t total = 0;

  int64_t take(int64_t count) {
    const int64_t first = total;
    total += ceil_div(count, 16) * 16;
    return first;
  }
};

template <class T>
class TileLayout final {
 public:
  // Where every layer's inputs are asked for to the end, A has a stack for each. A diagonal asks for those of the first
  // and of the last: two stacks take turns behind the first, and more of the tile stays in L2.
  TileLayout(const Sweep<T>& sweep, const Tiling<T>& tiling, bool all_inputs, Places& places)
      : sweep_(sweep), A_(sweep.layers + 1), Z_(sweep.layers) {
    const int L = sweep.layers;
    const int64_t rows = tiling.max_rows(), pairs = pairs_of(max_channels(sweep));
    scratch = places.take(scratch_size(sweep, rows));
    for (int l = 0; l < L; ++l)
      Z_[l] = sweep.layer[l].keeps_stash ? places.take(rows * padded<T>(sweep.layer[l].n_out)) : -1;
    A_[0] = places.take(rows * padded<T>(sweep.layer[0].n_in));
    for (int l = 1; l <= L; ++l)
      A_[l] = l <= 2 || all_inputs ? places.take(rows * padded<T>(widest_output(sweep))) : A_[l - 2];
    for (int64_t& d : D_) d = places.take(rows * padded<T>(widest_apart(sweep)));
    if (sweep.diag == nullptr) return;
    a_products = places.take(L * tiling.max_points() * pairs);
    d_products = places.take(tiling.max_points() * pairs);
  }

  int64_t views() const { return 3 * int64_t{sweep_.layers} + 1; }

  // Views of a tile with so many points.
  TileStacks<T> stacks(int64_t count, T* memory, Stack<T>* views) const {
    const int L = sweep_.layers;
    const TileStacks<T> stacks{views, views + L + 1, views + 2 * L + 1};
    for (int l = 0; l < L; ++l) {
      const Layer<T>& layer = sweep_.layer[l];
      stacks.A[l] = local_stack(memory + A_[l], count, layer.n_in);
      stacks.Z[l] = local_stack(Z_[l] < 0 ? nullptr : memory + Z_[l], count, layer.n_out);
      stacks.D[l] = local_stack(memory + D_[l % 2], count, layer.n_out);
    }
    stacks.A[L] = local_stack(memory + A_[L], count, sweep_.layer[L - 1].n_out);
    return stacks;
  }

  int64_t scratch;                         // what products work in
  int64_t a_products = 0, d_products = 0;  // of a diagonal: inner products of every layer's A, and of the current D

 private:
  const Sweep<T>& sweep_;
  Buffer<int64_t> A_, Z_;
  int64_t D_[2];
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
