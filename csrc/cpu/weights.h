// The effective weights of a chain, packed into panels: Wᵀ for the forward sweep, W for the backward one.
#pragma once

#include "buffer.h"
#include "parallel.h"
#include "product.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
int64_t packed_weights_size(const Layer<T>& layer, Pass pass) {
  return pass == Pass::forward ? packed_size<T>(layer.n_out, layer.n_in) : packed_size<T>(layer.n_in, layer.n_out);
}

template <class T>
class PackedWeights {
 public:
  // Layers below `first` are left out. Memory alone: pack() fills it.
  PackedWeights(const Sweep<T>& sweep, Pass pass, int first)
      : sweep_(sweep), pass_(pass), offset_(sweep.layers + 1), start_(sweep.layers + 1), data_(lay_out(first)) {}

  T* panel(int layer, int64_t p) const {
    const Layer<T>& of = sweep_.layer[layer];
    return data_.get() + offset_[layer] + p * panel_size<T>(pass_ == Pass::forward ? of.n_in : of.n_out);
  }
  int64_t panels() const { return start_[sweep_.layers]; }

  void pack_panel(int64_t task) const {
    const int l = part_of_task(start_.get(), task);
    const Layer<T>& layer = sweep_.layer[l];
    const int64_t p = task - start_[l];
    const T scale = layer.weight_scale;
    const auto [first, width] = panel_columns<T>(p, pass_ == Pass::forward ? layer.n_out : layer.n_in);
    const T* rows = layer.weight + first * (pass_ == Pass::forward ? layer.n_in : 1);
    if (pass_ == Pass::forward) pack_rows(rows, layer.n_in, width, layer.n_in, scale, panel(l, p));
    else
      pack_columns<T>([&](int64_t k) { return rows + k * layer.n_in; }, width, layer.n_out,
                      [=](int64_t) { return scale; }, panel(l, p));
  }

 private:
  // Fills the offsets and returns the size of everything.
  int64_t lay_out(int first) {
    int64_t total = 0;
    start_[0] = 0;
    for (int l = 0; l < sweep_.layers; ++l) {
      const Layer<T>& layer = sweep_.layer[l];
      const int64_t columns = pass_ == Pass::forward ? layer.n_out : layer.n_in;
      offset_[l] = total;
      total += l < first ? 0 : packed_weights_size(layer, pass_);
      start_[l + 1] = start_[l] + (l < first ? 0 : ceil_div(columns, kPanel<T>));
    }
    return total;
  }

  const Sweep<T>& sweep_;
  Pass pass_;
  Buffer<int64_t> offset_, start_;
  Buffer<T> data_;
};

template <class T>
void pack(const Parallel& parallel, const PackedWeights<T>& weights) {
  for_each_task(parallel, weights.panels(), [&](int64_t task, int) { weights.pack_panel(task); });
}

template <class T>
void pack(const Parallel& parallel, const PackedWeights<T>& a, const PackedWeights<T>& b) {
  for_each_task(parallel, a.panels() + b.panels(),
                [&](int64_t task, int) { task < a.panels() ? a.pack_panel(task) : b.pack_panel(task - a.panels()); });
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
