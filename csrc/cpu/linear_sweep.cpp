#include "linear_sweep.h"

#include "layer_diag.h"
#include "sweep.h"

// With u the output channels of a point, s its seeds and y its offset,
//
//   r = Σ_c s_c u_c − y        x = pull ∘ r        (Jᵀx)[W] = Σ_c D⁽ᶜ⁾ᵀ (x∘A⁽ᶜ⁾)        (Jᵀx)[b] = Σ_i x_i D_i⁽⁰⁾
//
// Jᵀx asks for the components j of a point together: the seeds Σ_j x_j s_j go back once and give Σ_j x_j D_j. A
// diagonal asks for each D_j, which goes back before them: the gradient has the same bits with it and without.
// Where the sweep turns (turn.h) the last layer's part is (Jᵀx)[w] = Σ_i x_i q_i, (Jᵀx)[b] = Σ_i x_i s₀.
//
// A tile goes through all layers and back before the next one starts, so that nothing of it leaves the cache but its
// rows and the stacks that are asked for. A slot takes every so-many-th tile and adds to sums of its own, which are
// added up at the end in one order: the same numbers for the same number of threads.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
bool asks_for_gradient(const LinearSweep<T>& p) {
  for (int l = 0; l < p.sweep.layers; ++l)
    if (p.weight[l] != nullptr) return true;
  return false;
}

// Whether the components of a group go back together.
template <class T>
bool goes_together(const LinearSweep<T>& p, const Group<T>& group) {
  return group.components > 1 && p.sweep.D == nullptr && asks_for_gradient(p);
}

// Every tile goes over all sums of the gradient. Where products are fast that is what takes time, so tiles are larger.
template <class T>
int64_t tile_rows(const LinearSweep<T>& p) {
  if (p.sweep.tile_rows == 0 && asks_for_gradient(p) && on_tiles<T>(widest(p.sweep))) return 320;
  return tile_rows_of(p.sweep);
}

// Where everything of one slot stands in its memory: the stacks of a tile, and the slot's sums. The weight sums of a
// layer are panels (panels, n_out, kPanel).
template <class T>
class LinearLayout : public SlotLayout {
 public:
  LinearLayout(const LinearSweep<T>& p, const Tiling<T>& tiling)
      : A(p.sweep.layers + 1),
        Z(p.sweep.layers),
        weight(p.sweep.layers),
        bias(p.sweep.layers),
        every_channel(max_channels(p.sweep)) {
    const Sweep<T>& sweep = p.sweep;
    const int L = sweep.layers, channels = max_channels(sweep);
    const int64_t rows = tiling.max_rows(), points = tiling.max_points();
    const bool gradient = asks_for_gradient(p);
    scratch = take(scratch_size(sweep, rows));
    for (int l = 0; l < L; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      Z.get()[l] = layer.keeps_stash ? take(rows * padded<T>(layer.n_out)) : -1;
    }
    // A gradient asks for the inputs of every layer, a diagonal for those of the first and of the last. Without a
    // gradient two stacks take turns behind the first, and more of the tile stays in L2.
    A.get()[0] = take(rows * padded<T>(sweep.layer[0].n_in));
    for (int l = 1; l <= L; ++l)
      A.get()[l] = l <= 2 || gradient ? take(rows * padded<T>(widest_output(sweep))) : A.get()[l - 2];
    for (int64_t& d : D) d = take(rows * padded<T>(widest_apart(sweep)));
    inputs = take(gradient ? 2 * packed_size<T>(kPanel<T>, rows) : 0);
    row = take(gradient ? rows * (8 / static_cast<int64_t>(sizeof(T))) : 0);  // pointers
    factor = take(gradient ? rows : 0);
    cotangents = take(gradient ? left_size<T>(widest(sweep), rows) : 0);
    pulled = take(points);
    bool together = false;
    for (int g = 0; g < sweep.groups; ++g) together = together || goes_together(p, sweep.group[g]);
    seeds = take(together ? rows * sweep.layer[L - 1].n_out : 0);
    for (int c = 0; c < channels; ++c) every_channel.get()[c] = c;
    a_products = sweep.diag == nullptr ? 0 : take(L * points * pairs_of(channels));
    d_products = sweep.diag == nullptr ? 0 : take(points * pairs_of(channels));
    sums = total;
    for (int l = 0; l < L; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      weight.get()[l] = p.weight[l] == nullptr ? -1 : take(ceil_div(layer.n_in, kPanel<T>) * kPanel<T> * layer.n_out);
      bias.get()[l] = p.bias[l] == nullptr ? -1 : take(layer.n_out);
    }
  }

  // Views of a tile with so many points.
  TileStacks<T> stacks(const Sweep<T>& sweep, int64_t count, T* memory, Stack<T>* views) const {
    const int L = sweep.layers;
    const TileStacks<T> stacks{views, views + L + 1, views + 2 * L + 1};
    for (int l = 0; l < L; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      stacks.A[l] = local_stack(memory + A.get()[l], count, layer.n_in);
      stacks.Z[l] = local_stack(Z.get()[l] < 0 ? nullptr : memory + Z.get()[l], count, layer.n_out);
      stacks.D[l] = local_stack(memory + D[l % 2], count, layer.n_out);
    }
    stacks.A[L] = local_stack(memory + A.get()[L], count, sweep.layer[L - 1].n_out);
    return stacks;
  }

  int64_t scratch, D[2], inputs, row, factor, cotangents, pulled, seeds, a_products, d_products, sums;
  Buffer<int64_t> A, Z, weight, bias;
  Buffer<int> every_channel;
};

// r = found − y and x of point i of one component, the latter to pulled[i].
template <class T>
void finish_row(const LinearSweep<T>& p, const Tile<T>& tile, int j, int64_t i, T found, T* pulled) {
  const Group<T>& group = *tile.group;
  const int64_t row = group.residual_row + (tile.first + i) * group.components + j;
  const T r = p.offset == nullptr ? found : found - p.offset[row];
  p.residual[row] = r;
  pulled[i] = p.pull == nullptr ? T(0) : p.pull[row] * r;
}

// r and x of one component, the latter (count).
template <class T>
void evaluate_rows(const LinearSweep<T>& p, const Tile<T>& tile, int j, Stack<T> u, T* pulled) {
  const Component& component = tile.group->component[j];
  const T* seed = static_cast<const T*>(component.seed);
  const int64_t* stride = component.seed_stride;
  const int64_t outputs = p.sweep.layer[p.sweep.layers - 1].n_out;
  for (int64_t i = 0; i < tile.count; ++i) {
    T r = 0;
    for (int c = 0; c < component.channels; ++c)
      for (int64_t o = 0; o < outputs; ++o)
        r += seed[c * stride[0] + (tile.first + i) * stride[1] + o * stride[2]] *
             u.data[component.channel[c] * u.channel + i * u.row + o];
    finish_row(p, tile, j, i, r, pulled);
  }
}

// Rows of all components, and the one that stands for them: it has every channel of the group and the seeds
// Σ_j x_j s_j, which are written to `seeds`, (channels, count, outputs). x becomes 1.
template <class T>
Component together(const LinearSweep<T>& p, const Tile<T>& tile, Stack<T> u, const int* every_channel, T* seeds, T* x) {
  const Group<T>& group = *tile.group;
  const int64_t outputs = p.sweep.layer[p.sweep.layers - 1].n_out, channel = tile.count * outputs;
  for (int64_t k = 0; k < group.channels * channel; ++k) seeds[k] = T(0);
  for (int j = 0; j < group.components; ++j) {
    evaluate_rows(p, tile, j, u, x);
    const Component& component = group.component[j];
    const T* seed = static_cast<const T*>(component.seed);
    const int64_t* stride = component.seed_stride;
    for (int c = 0; c < component.channels; ++c)
      for (int64_t i = 0; i < tile.count; ++i)
        for (int64_t o = 0; o < outputs; ++o)
          seeds[component.channel[c] * channel + i * outputs + o] +=
              x[i] * seed[c * stride[0] + (tile.first + i) * stride[1] + o * stride[2]];
  }
  for (int64_t i = 0; i < tile.count; ++i) x[i] = T(1);
  const T* first = seeds - tile.first * outputs;  // of the group's first point
  return {0, group.channels, group.directions, group.collapsed, every_channel, first, {channel, outputs, 1}};
}

// What the weight gradients work in: the rows of x∘A that belong to a component, two packed panels of them, and the
// cotangents as a left operand where they are split.
template <class T>
struct GradientScratch {
  const T** row;
  T *factor, *inputs, *cotangents;
};

// Σ_c D⁽ᶜ⁾ᵀ (x∘A⁽ᶜ⁾): one product whose inner index runs over the component's channels and points. A panel of inputs is
// packed beside the product of the one before it.
template <class T>
void add_weight_gradient(const Layer<T>& layer, const Component& component, int64_t count, Stack<T> A, Stack<T> D,
                         const T* x, const GradientScratch<T>& scratch, T* sums) {
  const int64_t depth = component.channels * count, panels = ceil_div(layer.n_in, kPanel<T>);
  const int64_t pieces = pack_pieces<T>(depth), steps = product_steps(layer.n_out, depth);
  for (int c = 0; c < component.channels; ++c)
    for (int64_t i = 0; i < count; ++i) {
      scratch.row[c * count + i] = A.data + component.channel[c] * A.channel + i * A.row;
      scratch.factor[c * count + i] = x[i];
    }
  const auto packed = [&](int64_t q) { return scratch.inputs + q % 2 * panel_size<T>(depth); };
  const auto pack = [&](int64_t q, int64_t piece) {
    const Columns columns = panel_columns(q, kPanel<T>, layer.n_in);
    pack_columns<T>([&](int64_t k) { return scratch.row[k] + columns.first; }, columns.width, depth,
                    [&](int64_t k) { return scratch.factor[k]; }, packed(q), piece);
  };
  const Left<T> left = left_of_columns(D.data, D.row, layer.n_out, depth, scratch.cotangents);
  for (int64_t piece = 0; piece < pieces; ++piece) pack(0, piece);
  for (int64_t q = 0; q < panels; ++q) {
    const int64_t last = q + 1 < panels ? pieces : 0;
    int64_t step = 0, piece = 0;
    auto beside = [&] {
      if (++step * pieces > piece * steps && piece < last) pack(q + 1, piece++);
    };
    product<true, true>(left, 0, layer.n_out, packed(q), panel_columns(q, kPanel<T>, layer.n_in).width, depth,
                        sums + q * layer.n_out * kPanel<T>, kPanel<T>, Aside(beside));
    while (piece < last) pack(q + 1, piece++);
  }
}

template <class T>
void add_bias_gradient(int64_t count, Stack<T> D, int64_t n_out, const T* x, T* sums) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t m = 0; m < n_out; ++m) sums[m] += x[i] * D.data[i * D.row + m];
}

// The last layer's part where the sweep has turned: rows and x, the diagonal, the gradient.
template <class T>
void finish_turn(const LinearSweep<T>& p, const Tile<T>& tile, const Turn<T>& turn, const LinearLayout<T>& slot,
                 T* memory) {
  const Sweep<T>& sweep = p.sweep;
  const int last = sweep.layers - 1;
  T* x = memory + slot.pulled;
  for (int64_t i = 0; i < tile.count; ++i) finish_row(p, tile, 0, i, turned_row(turn, i), x);
  if (sweep.diag != nullptr)
    turn_diag(turn, sweep.diag + last * sweep.residual_rows + tile.group->residual_row + tile.first);
  if (p.weight[last] != nullptr) {
    T* sums = memory + slot.weight.get()[last];
    for (int64_t i = 0; i < tile.count; ++i)
      for (int64_t k = 0; k < turn.last->n_in; ++k) sums[k] += x[i] * turn.q.data[i * turn.q.row + k];
  }
  if (p.bias[last] != nullptr) {
    T* sum = memory + slot.bias.get()[last];
    for (int64_t i = 0; i < tile.count; ++i) *sum += x[i] * seed_of_value(turn, i);
  }
}

template <class T>
void sweep_tile(const LinearSweep<T>& p, const PackedWeights<T>& forward, const PackedWeights<T>& backward, int first,
                const Tile<T>& tile, const LinearLayout<T>& slot, T* memory, Stack<T>* views) {
  const Sweep<T>& sweep = p.sweep;
  const int L = sweep.layers, channels = tile.channels(), a_pairs = pairs_of(channels);
  const Group<T>& group = *tile.group;
  const TileStacks<T> stacks = slot.stacks(sweep, tile.count, memory, views);
  const bool diag = sweep.diag != nullptr;
  T *scratch = memory + slot.scratch, *x = memory + slot.pulled;
  const auto a_products = [&](int l) { return memory + slot.a_products + l * tile.count * a_pairs; };
  const GradientScratch<T> gradient_scratch{reinterpret_cast<const T**>(memory + slot.row), memory + slot.factor,
                                            memory + slot.inputs, memory + slot.cotangents};
  const auto keep_inputs = [&](int l) {
    if (l == L || sweep.A == nullptr) return;
    const int64_t n_in = sweep.layer[l].n_in;
    copy_stack(channels, tile.count, n_in, stacks.A[l], stack_of(sweep.A[l], group.row, tile, n_in));
  };
  const auto of_inputs = [&](int l, Points points) {
    if (diag && l >= first && l < L) input_products(sweep, group, l, points, stacks.A[l], a_products(l));
  };
  const auto keep_cotangents = [&](int l, const Component& component) {
    const Layer<T>& layer = sweep.layer[l];
    if (sweep.D != nullptr)
      copy_stack(component.channels, tile.count, layer.n_out, stacks.D[l],
                 stack_of(sweep.D[l], component.row, tile, layer.n_out));
    if (p.weight[l] != nullptr)
      add_weight_gradient(layer, component, tile.count, stacks.A[l], stacks.D[l], x, gradient_scratch,
                          memory + slot.weight.get()[l]);
    if (p.bias[l] != nullptr) add_bias_gradient(tile.count, stacks.D[l], layer.n_out, x, memory + slot.bias.get()[l]);
  };
  const auto of_cotangents = [&](int j, int l, Points points) {
    if (diag) layer_diag(sweep, tile, j, l, points, stacks.A[l], a_products(l), stacks.D[l], memory + slot.d_products);
  };
  if (sweep.A == nullptr && sweep.D == nullptr && can_turn(sweep, group)) {
    const Component& component = group.component[0];
    const Turn<T> turn = turn_tile(sweep, forward, tile, stacks, scratch, of_inputs);
    finish_turn(p, tile, turn, slot, memory);
    keep_cotangents(L - 2, component);
    return descend_tile(
        sweep, backward, tile, component, L - 2, first, stacks, scratch, [&](int l) { keep_cotangents(l, component); },
        [&](int l, Points points) { of_cotangents(0, l, points); });
  }
  forward_tile(sweep, L, forward, tile, stacks, scratch, keep_inputs, of_inputs);
  if (goes_together(p, group)) {
    for (int j = 0; diag && j < group.components; ++j)
      backward_tile(
          sweep, backward, tile, group.component[j], first, stacks, scratch, [](int) {},
          [&](int l, Points points) { of_cotangents(j, l, points); });
    const Component all = together(p, tile, stacks.A[L], slot.every_channel.get(), memory + slot.seeds, x);
    pull_in_place(sweep, stacks);
    return backward_tile(
        sweep, backward, tile, all, first, stacks, scratch, [&](int l) { keep_cotangents(l, all); },
        [](int, Points) {});
  }
  for (int j = 0; j < group.components; ++j) {
    const Component& component = group.component[j];
    if (j + 1 == group.components) pull_in_place(sweep, stacks);
    evaluate_rows(p, tile, j, stacks.A[L], x);
    backward_tile(
        sweep, backward, tile, component, first, stacks, scratch, [&](int l) { keep_cotangents(l, component); },
        [&](int l, Points points) { of_cotangents(j, l, points); });
  }
}

// Row m of a layer's gradients: the sums of all slots, in order.
template <class T>
void add_up(const LinearSweep<T>& p, const LinearLayout<T>& slot, const T* memory, int slots, int l, int64_t m) {
  const Layer<T>& layer = p.sweep.layer[l];
  for (int64_t k = 0; p.weight[l] != nullptr && k < layer.n_in; k += kLanes<T>) {
    const T* from = memory + slot.weight.get()[l] + (k / kPanel<T> * layer.n_out + m) * kPanel<T> + k % kPanel<T>;
    Vec<T> sum{};
    for (int s = 0; s < slots; ++s) sum += load<T>(from + s * slot.total);
    T* to = p.weight[l] + m * layer.n_in + k;
    if (layer.n_in - k >= kLanes<T>) store<T>(to, sum * layer.weight_jacobian);
    else store_partial<T>(to, sum * layer.weight_jacobian, static_cast<int>(layer.n_in - k));
  }
  if (p.bias[l] == nullptr) return;
  T sum = 0;
  for (int s = 0; s < slots; ++s) sum += memory[s * slot.total + slot.bias.get()[l] + m];
  p.bias[l][m] = sum * layer.bias_jacobian;
}

}  // namespace

template <class T>
void linear_sweep(const LinearSweep<T>& p, const Parallel& parallel) {
  const Sweep<T>& sweep = p.sweep;
  const Tiling<T> tiling(sweep, parallel.threads, tile_rows(p));
  const int first = sweep.first_active, L = sweep.layers, slots = parallel.threads;
  const PackedWeights<T> forward(sweep, Pass::forward, 0), backward(sweep, Pass::backward, first + 1);
  pack(parallel, forward, backward);
  const LinearLayout<T> slot(p, tiling);
  const Buffer<T> memory(slots * slot.total);
  const Buffer<Stack<T>> views(slots * (3 * L + 1));
  for (int64_t i = 0; sweep.diag != nullptr && i < first * sweep.residual_rows; ++i) sweep.diag[i] = 0;
  for_each_slot(parallel, [&](int s) {
    T* own = memory.get() + s * slot.total;
    for (int64_t i = slot.sums; i < slot.total; ++i) own[i] = T(0);
    for (int64_t task = s; task < tiling.tiles(); task += slots)
      sweep_tile(p, forward, backward, first, tiling.tile(task), slot, own, views.get() + s * (3 * L + 1));
  });
  constexpr int64_t kRows = 16;  // of a task
  Buffer<int64_t> start(L + 1);
  start.get()[0] = 0;
  for (int l = 0; l < L; ++l) start.get()[l + 1] = start.get()[l] + ceil_div(sweep.layer[l].n_out, kRows);
  for_each_task(parallel, start.get()[L], [&](int64_t task, int) {
    const int l = part_of_task(start.get(), task);
    const int64_t from = (task - start.get()[l]) * kRows;
    const int64_t to = from + kRows < sweep.layer[l].n_out ? from + kRows : sweep.layer[l].n_out;
    for (int64_t m = from; m < to; ++m) add_up(p, slot, memory.get(), slots, l, m);
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(linear_sweep, LinearSweep)
