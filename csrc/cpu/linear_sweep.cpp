#include "linear_sweep.h"

#include "long_sums.h"
#include "tile_layout.h"

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
// added up at the end in one order: the same numbers for the same number of threads. Sums of many tiles are LongSums.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int64_t kTilesOfSum = 16;

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
struct LinearLayout final {
  Places places;
  TileLayout<T> tile;
  int64_t inputs = 0, row = 0, factor = 0, cotangents = 0;  // of a gradient (GradientScratch)
  int64_t pulled, seeds, sums;
  Buffer<int64_t> weight, bias;
  Buffer<int> every_channel;

  LinearLayout(const LinearSweep<T>& p, const Tiling<T>& tiling)
      : tile(p.sweep, tiling, asks_for_gradient(p), places),
        weight(p.sweep.layers),
        bias(p.sweep.layers),
        every_channel(max_channels(p.sweep)) {
    const Sweep<T>& sweep = p.sweep;
    const int64_t rows = tiling.max_rows();
    if (asks_for_gradient(p)) {
      constexpr int64_t kPointer = sizeof(const T*) / sizeof(T);
      inputs = places.take(2 * packed_size<T>(kPanel<T>, rows));
      row = places.take(kPointer * rows);
      factor = places.take(rows);
      cotangents = places.take(left_size<T>(widest(sweep), rows));
    }
    pulled = places.take(tiling.max_points());
    bool together = false;
    for (int g = 0; g < sweep.groups; ++g) together = together || goes_together(p, sweep.group[g]);
    seeds = places.take(together ? rows * sweep.layer[sweep.layers - 1].n_out : 0);
    for (int c = 0; c < max_channels(sweep); ++c) every_channel[c] = c;
    sums = places.total;
    for (int l = 0; l < sweep.layers; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      weight[l] = p.weight[l] == nullptr ? -1 : places.take(ceil_div(layer.n_in, kPanel<T>) * kPanel<T> * layer.n_out);
      bias[l] = p.bias[l] == nullptr ? -1 : places.take(layer.n_out);
    }
  }
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
  const core::Seeds<T> seed = core::seeds_of<T>(component, tile.first);
  const int64_t outputs = p.sweep.layer[p.sweep.layers - 1].n_out;
  for (int64_t i = 0; i < tile.count; ++i) {
    T r = 0;
    for (int c = 0; c < component.channels; ++c)
      for (int64_t o = 0; o < outputs; ++o)
        r += seed(c, i, o) * u.data[component.channel[c] * u.channel + i * u.row + o];
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
    const core::Seeds<T> seed = core::seeds_of<T>(component, tile.first);
    for (int c = 0; c < component.channels; ++c)
      for (int64_t i = 0; i < tile.count; ++i)
        for (int64_t o = 0; o < outputs; ++o)
          seeds[component.channel[c] * channel + i * outputs + o] += x[i] * seed(c, i, o);
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
    const Columns columns = panel_columns<T>(q, layer.n_in);
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
    product<true, true>(left, layer.n_out, packed(q), panel_columns<T>(q, layer.n_in).width, depth,
                        sums + q * layer.n_out * kPanel<T>, kPanel<T>, Aside(beside));
    while (piece < last) pack(q + 1, piece++);
  }
}

template <class T>
void add_bias_gradient(int64_t count, Stack<T> D, int64_t n_out, const T* x, T* sums) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t m = 0; m < n_out; ++m) sums[m] += x[i] * D.data[i * D.row + m];
}

// A tile through all layers and back.
template <class T>
class TileSweep final {
 public:
  TileSweep(const LinearSweep<T>& p, const Tile<T>& tile, const LinearLayout<T>& slot, T* memory, Stack<T>* views)
      : p_(p), tile_(tile), slot_(slot), memory_(memory), stacks_(slot.tile.stacks(tile.count, memory, views)) {}

  void run(const PackedWeights<T>& forward, const PackedWeights<T>& backward) const {
    if (sweep().A == nullptr && sweep().D == nullptr && can_turn(sweep(), group())) return turn(forward, backward);
    forward_tile(
        sweep(), sweep().layers, forward, tile_, stacks_, scratch(), [&](int l) { keep_inputs(l); },
        [&](int l, Points points) { multiply_inputs(l, points); });
    const int last = group().components - 1;
    if (goes_together(p_, group())) {
      for (int j = 0; sweep().diag != nullptr && j <= last; ++j) go_back(backward, group().component[j], j, false);
      const Component all =
          together(p_, tile_, stacks_.A[sweep().layers], slot_.every_channel.get(), memory_ + slot_.seeds, pulled());
      pull_in_place(sweep(), stacks_);
      return go_back(backward, all, kNoDiagonal, true);
    }
    for (int j = 0; j <= last; ++j) {
      if (j == last) pull_in_place(sweep(), stacks_);
      evaluate_rows(p_, tile_, j, stacks_.A[sweep().layers], pulled());
      go_back(backward, group().component[j], j, true);
    }
  }

 private:
  static constexpr int kNoDiagonal = -1;

  const Sweep<T>& sweep() const { return p_.sweep; }
  const Group<T>& group() const { return *tile_.group; }
  T* scratch() const { return memory_ + slot_.tile.scratch; }
  T* pulled() const { return memory_ + slot_.pulled; }
  T* a_products(int l) const { return memory_ + slot_.tile.a_products + l * tile_.count * pairs_of(tile_.channels()); }

  // There and back at once.
  void turn(const PackedWeights<T>& forward, const PackedWeights<T>& backward) const {
    const int below = sweep().layers - 2;
    const Component& component = group().component[0];
    const Turn<T> turn = turn_tile(sweep(), forward, tile_, stacks_, scratch(),
                                   [&](int l, Points points) { multiply_inputs(l, points); });
    finish_turn(turn);
    keep_cotangents(below, component);
    descend_tile(
        sweep(), backward, tile_, component, below, sweep().first_active, stacks_, scratch(),
        [&](int l) { keep_cotangents(l, component); }, [&](int l, Points points) { add_diagonal(0, l, points); });
  }

  // The last layer's part where the sweep has turned: rows and x, the diagonal, the gradient.
  void finish_turn(const Turn<T>& turn) const {
    const int last = sweep().layers - 1;
    T* x = pulled();
    for (int64_t i = 0; i < tile_.count; ++i) finish_row(p_, tile_, 0, i, turned_row(turn, i), x);
    if (sweep().diag != nullptr)
      turn_diag(turn, sweep().diag + last * sweep().residual_rows + group().residual_row + tile_.first);
    if (p_.weight[last] != nullptr) {
      T* sums = memory_ + slot_.weight[last];
      for (int64_t i = 0; i < tile_.count; ++i)
        for (int64_t k = 0; k < turn.last->n_in; ++k) sums[k] += x[i] * turn.q.data[i * turn.q.row + k];
    }
    if (p_.bias[last] != nullptr) {
      T* sum = memory_ + slot_.bias[last];
      for (int64_t i = 0; i < tile_.count; ++i) *sum += x[i] * seed_of_value(turn, i);
    }
  }

  // The cotangents of a component, for the diagonal of component j if there is one, kept if they are asked for.
  void go_back(const PackedWeights<T>& weights, const Component& component, int j, bool keeps) const {
    backward_tile(
        sweep(), weights, tile_, component, sweep().first_active, stacks_, scratch(),
        [&](int l) {
          if (keeps) keep_cotangents(l, component);
        },
        [&](int l, Points points) {
          if (j != kNoDiagonal) add_diagonal(j, l, points);
        });
  }

  void keep_inputs(int l) const {
    if (l == sweep().layers || sweep().A == nullptr) return;
    const int64_t n_in = sweep().layer[l].n_in;
    copy_stack(tile_.channels(), tile_.count, n_in, stacks_.A[l], stack_of(sweep().A[l], group().row, tile_, n_in));
  }

  void multiply_inputs(int l, Points points) const {
    if (sweep().diag != nullptr && l >= sweep().first_active && l < sweep().layers)
      input_products(sweep(), group(), l, points, stacks_.A[l], a_products(l));
  }

  void keep_cotangents(int l, const Component& component) const {
    const Layer<T>& layer = sweep().layer[l];
    const GradientScratch<T> gradient{reinterpret_cast<const T**>(memory_ + slot_.row), memory_ + slot_.factor,
                                      memory_ + slot_.inputs, memory_ + slot_.cotangents};
    if (sweep().D != nullptr)
      copy_stack(component.channels, tile_.count, layer.n_out, stacks_.D[l],
                 stack_of(sweep().D[l], component.row, tile_, layer.n_out));
    if (p_.weight[l] != nullptr)
      add_weight_gradient(layer, component, tile_.count, stacks_.A[l], stacks_.D[l], pulled(), gradient,
                          memory_ + slot_.weight[l]);
    if (p_.bias[l] != nullptr)
      add_bias_gradient(tile_.count, stacks_.D[l], layer.n_out, pulled(), memory_ + slot_.bias[l]);
  }

  void add_diagonal(int j, int l, Points points) const {
    if (sweep().diag != nullptr)
      layer_diag(sweep(), tile_, j, l, points, stacks_.A[l], a_products(l), stacks_.D[l],
                 memory_ + slot_.tile.d_products);
  }

  const LinearSweep<T>& p_;
  const Tile<T>& tile_;
  const LinearLayout<T>& slot_;
  T* memory_;
  TileStacks<T> stacks_;
};

// Row m of a layer's gradients: the sums of all slots, in order.
template <class T>
void add_up(const LinearSweep<T>& p, const LinearLayout<T>& slot, const T* memory, int slots, int l, int64_t m) {
  const Layer<T>& layer = p.sweep.layer[l];
  for (int64_t k = 0; p.weight[l] != nullptr && k < layer.n_in; k += kLanes<T>) {
    const T* from = memory + slot.weight[l] + (k / kPanel<T> * layer.n_out + m) * kPanel<T> + k % kPanel<T>;
    Vec<T> sum{};
    for (int s = 0; s < slots; ++s) sum += load<T>(from + s * slot.places.total);
    T* to = p.weight[l] + m * layer.n_in + k;
    if (layer.n_in - k >= kLanes<T>) store<T>(to, sum * layer.weight_jacobian);
    else store_partial<T>(to, sum * layer.weight_jacobian, static_cast<int>(layer.n_in - k));
  }
  if (p.bias[l] == nullptr) return;
  T sum = 0;
  for (int s = 0; s < slots; ++s) sum += memory[s * slot.places.total + slot.bias[l] + m];
  p.bias[l][m] = sum * layer.bias_jacobian;
}

}  // namespace

template <class T>
void linear_sweep(const LinearSweep<T>& p, const Parallel& parallel) {
  const Sweep<T>& sweep = p.sweep;
  const Tiling<T> tiling(sweep, parallel.threads, tile_rows(p));
  const int L = sweep.layers, slots = parallel.threads;
  const PackedWeights<T> forward(sweep, Pass::forward, 0), backward(sweep, Pass::backward, sweep.first_active + 1);
  pack(parallel, forward, backward);
  const LinearLayout<T> slot(p, tiling);
  const Buffer<T> memory(slots * slot.places.total);
  const Buffer<Stack<T>> views(slots * slot.tile.views());
  const int64_t sums = slot.places.total - slot.sums;
  const bool many = ceil_div(tiling.tiles(), slots) > kTilesOfSum;
  const Buffer<double> before(many ? slots * sums : 0);
  const int64_t frozen = sweep.first_active * sweep.residual_rows;
  for (int64_t i = 0; sweep.diag != nullptr && i < frozen; ++i) sweep.diag[i] = 0;
  for_each_slot(parallel, [&](int s) {
    T* own = memory.get() + s * slot.places.total;
    const LongSums<T> gradient(own + slot.sums, many ? before.get() + s * sums : nullptr, sums);
    for (int64_t task = s, done = 0; task < tiling.tiles(); task += slots) {
      const Tile<T> tile = tiling.tile(task);
      TileSweep<T>(p, tile, slot, own, views.get() + s * slot.tile.views()).run(forward, backward);
      if (++done % kTilesOfSum == 0) gradient.go_on();
    }
    gradient.finish();
  });
  constexpr int64_t kRows = 16;  // of a task
  Buffer<int64_t> start(L + 1);
  start[0] = 0;
  for (int l = 0; l < L; ++l) start[l + 1] = start[l] + ceil_div(sweep.layer[l].n_out, kRows);
  for_each_task(parallel, start[L], [&](int64_t task, int) {
    const int l = part_of_task(start.get(), task);
    const int64_t from = (task - start[l]) * kRows;
    const int64_t to = from + kRows < sweep.layer[l].n_out ? from + kRows : sweep.layer[l].n_out;
    for (int64_t m = from; m < to; ++m) add_up(p, slot, memory.get(), slots, l, m);
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(linear_sweep, LinearSweep)
