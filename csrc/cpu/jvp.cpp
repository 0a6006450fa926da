#include "jvp.h"

#include "inner_products.h"
#include "sweep.h"

// (J v)_i = Σ_c ⟨D_i⁽ᶜ⁾, V A_i⁽ᶜ⁾⟩ + ⟨D_i⁽⁰⁾, v_b⟩
//
// A Vᵀ is one forward product a layer, reduced against D panel by panel.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// The chain with v in place of its weights, and nothing where v has no entry.
template <class T>
void fill_tangents(const Jvp<T>& p, Layer<T>* layers) {
  for (int l = 0; l < p.sweep.layers; ++l) {
    layers[l] = p.sweep.layer[l];
    layers[l].weight = p.weight[l];
    layers[l].weight_scale = p.sweep.layer[l].weight_jacobian;
    if (p.weight[l] == nullptr) layers[l].n_out = 0;
  }
}

template <class T>
void add_weight(const Jvp<T>& p, const PackedWeights<T>& tangents, const Tile<T>& tile, int l, Stack<T> A, T* scratch) {
  const Group<T>& group = *tile.group;
  const Layer<T>& layer = p.sweep.layer[l];
  copy_stack(tile.channels(), tile.count, layer.n_in, stack_of(p.sweep.A[l], group.row, tile, layer.n_in), A);
  const int64_t rows = tile.channels() * tile.count;
  const Left<T> left{A.data, A.row, scratch + 2 * rows * kPanel<T>};
  split_left(left, rows, layer.n_in);
  const Products<T> of_tangents = scratch_products(scratch, rows);
  stack_product(
      StackProduct<T>{tile.channels(), tile.count, left, layer.n_in, layer.n_out, of_tangents},
      [&](int64_t q) { return tangents.panel(l, q); },
      [&](Columns columns, const T* products, Points points) {
        for (int j = 0; j < group.components; ++j) {
          const Component& component = group.component[j];
          for (int c = 0; c < component.channels; ++c)
            for (int64_t i = points.first; i < points.first + points.count; ++i) {
              const T* d = p.sweep.D[l] + (component.row + c * group.n + tile.first + i) * layer.n_out + columns.first;
              const T* product = products + (component.channel[c] * tile.count + i) * of_tangents.row;
              p.out[group.residual_row + (tile.first + i) * group.components + j] += dot(d, product, columns.width);
            }
        }
      },
      [](int64_t, int64_t) {}, [](Points) {});
}

template <class T>
void add_bias(const Jvp<T>& p, const Tile<T>& tile, int l) {
  const Group<T>& group = *tile.group;
  const Layer<T>& layer = p.sweep.layer[l];
  for (int j = 0; j < group.components; ++j)
    for (int64_t i = 0; i < tile.count; ++i) {
      const T* d = p.sweep.D[l] + (group.component[j].row + tile.first + i) * layer.n_out;
      p.out[group.residual_row + (tile.first + i) * group.components + j] +=
          static_cast<double>(layer.bias_jacobian) * dot(d, p.bias[l], layer.n_out);
    }
}

}  // namespace

template <class T>
void jvp(const Jvp<T>& p, const Parallel& parallel) {
  const int L = p.sweep.layers;
  const Buffer<Layer<T>> layers(L);
  fill_tangents(p, layers.get());
  Sweep<T> tangent_chain = p.sweep;
  tangent_chain.layer = layers.get();
  const PackedWeights<T> tangents(tangent_chain, Pass::forward, 0);
  pack(parallel, tangents);
  const Tiling<T> tiling(p.sweep, parallel.threads);
  const int64_t scratch = scratch_size(p.sweep, tiling.max_rows());
  const int64_t slot_size = scratch + tiling.max_rows() * padded<T>(widest(p.sweep));
  const Buffer<T> slots(parallel.threads * slot_size);
  for (int64_t i = 0; i < p.sweep.residual_rows; ++i) p.out[i] = 0;
  for_each_task(parallel, tiling.tiles(), [&](int64_t task, int slot) {
    const Tile<T> tile = tiling.tile(task);
    if (!tile.group->selected) return;
    T* memory = slots.get() + slot * slot_size;
    for (int l = 0; l < L; ++l) {
      const Stack<T> A = local_stack(memory + scratch, tile.count, p.sweep.layer[l].n_in);
      if (p.weight[l] != nullptr) add_weight(p, tangents, tile, l, A, memory);
      if (p.bias[l] != nullptr) add_bias(p, tile, l);
    }
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(jvp, Jvp)
