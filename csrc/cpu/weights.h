// The effective weights of a chain, packed into panels: Wᵀ for the forward sweep, W for the backward one.
#pragma once

#include "buffer.h"
#include "parallel.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

enum class Direction { forward, backward };

template <class T>
int64_t packed_weights_size(const Layer<T>& layer, Direction direction) {
  return direction == Direction::forward ? packed_size<T>(layer.n_out, layer.n_in)
                                         : packed_size<T>(layer.n_in, layer.n_out);
}

template <class T>
class PackedWeights {
 public:
  // Layers below `first` are left out.
  PackedWeights(const Sweep<T>& sweep, Direction direction, int first, const Parallel& parallel)
      : offset_(sweep.layers + 1), data_(offsets(sweep, direction, first)) {
    Buffer<int64_t> panels(sweep.layers + 1);
    panels.get()[0] = 0;
    for (int l = 0; l < sweep.layers; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      const int64_t columns = direction == Direction::forward ? layer.n_out : layer.n_in;
      panels.get()[l + 1] = panels.get()[l] + (l < first ? 0 : ceil_div(columns, kPanel<T>));
    }
    const auto pack = [&](int64_t task, int) {
      int l = 0;
      while (task >= panels.get()[l + 1]) ++l;
      const Layer<T>& layer = sweep.layer[l];
      const int64_t p = task - panels.get()[l];
      if (direction == Direction::forward)
        pack_rows(layer.weight, layer.n_in, layer.n_out, layer.n_in, layer.weight_scale, p,
                  of(l) + p * kPanel<T> * layer.n_in);
      else
        pack_columns(layer.weight, layer.n_in, layer.n_in, layer.n_out, layer.weight_scale, p,
                     of(l) + p * kPanel<T> * layer.n_out);
    };
    for_each_task(parallel, panels.get()[sweep.layers], pack);
  }

  T* of(int layer) const { return data_.get() + offset_.get()[layer]; }

 private:
  int64_t offsets(const Sweep<T>& sweep, Direction direction, int first) {
    int64_t total = 0;
    for (int l = 0; l < sweep.layers; ++l) {
      offset_.get()[l] = total;
      total += l < first ? 0 : packed_weights_size(sweep.layer[l], direction);
    }
    return total;
  }

  Buffer<int64_t> offset_;
  Buffer<T> data_;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
