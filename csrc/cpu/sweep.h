// The forward and the backward sweep of one tile of points through all layers.
//
//   forward    Z_l = A_l W_lᵀ (+ b on the value channel)      A_{l+1} = push_forward(Z_l)
//   backward   D_L = seeds, pulled back through a last activation      D_{l−1} = pull_back(D_l W_l, Z_{l−1})
//   or         there and back at once through the activation before the last layer (turn.h)
//
// All stacks are local to the tile: their rows are padded to whole vectors, those of A and D stand together as one left
// operand, and the products of a layer are written into Z.
#pragma once

#include <cstring>

#include "../core/seeds.h"
#include "stack_product.h"
#include "turn.h"
#include "weights.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Views of one tile, indexed by layer. A[layers] is the output.
template <class T>
struct TileStacks {
  Stack<T>* A;
  Stack<T>* Z;
  Stack<T>* D;
};

// Largest tile of a group: about `tile_rows` rows, cut so that the tiles of a group are nearly equal and occupy every
// thread.
template <class T>
int64_t tile_points(const Group<T>& group, int64_t tile_rows, int threads) {
  const int64_t largest = tile_rows > group.channels ? tile_rows / group.channels : 1;
  int64_t tiles = ceil_div(group.n, largest);
  if (group.n >= 8 * threads) tiles = ceil_div(tiles, threads) * threads;
  return tiles > 0 ? ceil_div(group.n, tiles) : 1;
}

template <class T>
int64_t widest_output(const Sweep<T>& sweep) {
  int64_t width = 1;
  for (int l = 0; l < sweep.layers; ++l) width = sweep.layer[l].n_out > width ? sweep.layer[l].n_out : width;
  return width;
}

template <class T>
int64_t widest(const Sweep<T>& sweep) {
  const int64_t outputs = widest_output(sweep);
  return sweep.layer[0].n_in > outputs ? sweep.layer[0].n_in : outputs;
}

// The widest layer whose cotangents have a stack of their own: those of a lone component lie over the stash, where
// there is one (pull_in_place).
template <class T>
int64_t widest_apart(const Sweep<T>& sweep) {
  for (int g = 0; g < sweep.groups; ++g)
    if (sweep.group[g].components > 1) return widest_output(sweep);
  const Layer<T>& last = sweep.layer[sweep.layers - 1];
  return last.keeps_stash ? 1 : last.n_out;
}

// Rows of a tile: its stacks stay inside L2 up to width 1000, and a panel of weights is read often enough from L1.
// Split weights that do not fit L2 are read more often than tiles can wait for.
template <class T>
int64_t tile_rows_of(const Sweep<T>& sweep) {
  if (sweep.tile_rows > 0) return sweep.tile_rows;
  return kHasTiles<T> && widest(sweep) > 320 ? 192 : 128;
}

// Memory that a sweep works in: the products of two panels, and two left operands where they are split.
template <class T>
int64_t scratch_size(const Sweep<T>& sweep, int64_t rows) {
  return 2 * (rows * kPanel<T> + left_size<T>(rows, widest(sweep)));
}

// The left operand of layer l's product, whose rows are those of a tile-local stack. Layers take turns with the memory;
// that of a layer's way back is not that of its way there, so that a sweep may turn at any of them.
template <class T>
Left<T> left_of_layer(const Sweep<T>& sweep, Pass pass, int l, int64_t rows, Stack<T> a, T* scratch) {
  const int place = (pass == Pass::forward ? l : l + 1) % 2;
  return {a.data, a.row, scratch + 2 * rows * kPanel<T> + place * left_size<T>(rows, widest(sweep))};
}

// Between a tile-local stack, whose rows stand together, and the caller's. Whole rows at a time: a sweep writes a layer
// panel by panel, and slices of rows that leave the cache one by one cost several times the bandwidth.
template <class T>
void copy_stack(int channels, int64_t count, int64_t width, Stack<T> from, Stack<T> to) {
  for (int c = 0; c < channels; ++c)
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(to.data + c * to.channel + i * to.row, from.data + c * from.channel + i * from.row,
                  static_cast<std::size_t>(width) * sizeof(T));
}

// Rows of tile-local stacks start on cache lines, and not all on the same few sets of the cache.
template <class T>
constexpr int64_t padded(int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t lines = ceil_div(width, kLine);
  return (lines % 8 == 0 ? lines + 1 : lines) * kLine;
}

template <class T>
Stack<T> local_stack(T* memory, int64_t count, int64_t width) {
  return {memory, count * padded<T>(width), padded<T>(width)};
}

// Lets the cotangents of a group's last component take the place of the stash, for which nobody asks after them: fewer
// lines pass between the caches. Channel c of a component is channel c or a later one of its group, and its channels
// ascend, so that a pull-back in the order of core/faa_di_bruno.h reads every channel before it writes over it.
template <class T>
void pull_in_place(const Sweep<T>& sweep, const TileStacks<T>& stacks) {
  for (int l = 0; l < sweep.layers; ++l)
    if (stacks.Z[l].data != nullptr) stacks.D[l] = stacks.Z[l];
}

// The tile's rows in a stack of the caller: `row` is the first one of its group or component.
template <class T>
Stack<T> stack_of(T* stack, int64_t row, const Tile<T>& tile, int64_t width) {
  return {stack + (row + tile.first) * width, tile.group->n * width, width};
}

// Input channels of the first layer: the points, then β.
template <class T>
void fill_inputs(const Tile<T>& tile, int64_t d, Stack<T> A) {
  const Group<T>& group = *tile.group;
  for (int c = 0; c < tile.channels(); ++c)
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t point = tile.first + i;
      const T* from = c == 0 ? group.points + point * d : group.beta + point * group.beta_stride + (c - 1) * d;
      T* to = A.data + c * A.channel + i * A.row;
      for (int64_t j = 0; j < d; ++j) to[j] = from[j];
    }
}

// The product of layer l on its way there: finish and split as in stack_product, meanwhile(l, points) beside it.
template <class T, class Finish, class Split, class Meanwhile>
void forward_product(const Sweep<T>& sweep, int l, const PackedWeights<T>& weights, const Tile<T>& tile,
                     const TileStacks<T>& stacks, const Products<T>& z, T* scratch, const Finish& finish,
                     const Split& split, const Meanwhile& meanwhile) {
  const Layer<T>& layer = sweep.layer[l];
  const Left<T> left = left_of_layer(sweep, Pass::forward, l, tile.channels() * tile.count, stacks.A[l], scratch);
  stack_product(
      StackProduct<T>{tile.channels(), tile.count, left, layer.n_in, layer.n_out, z},
      [&](int64_t p) { return weights.panel(l, p); }, finish, split, [&](Points points) { meanwhile(l, points); });
}

// Through the first `layers` layers; A_layers is split where another product follows. When A_l, and with it Z_{l−1}, is
// complete, after(l) runs and then meanwhile(l, points) for all points, some at a time, beside the next product.
template <class T, class After, class Meanwhile>
void push_layers(const Sweep<T>& sweep, int layers, bool another, const PackedWeights<T>& weights, const Tile<T>& tile,
                 const TileStacks<T>& stacks, T* scratch, const After& after, const Meanwhile& meanwhile) {
  const int64_t rows = tile.channels() * tile.count;
  const auto left = [&](int l) { return left_of_layer(sweep, Pass::forward, l, rows, stacks.A[l], scratch); };
  fill_inputs(tile, sweep.layer[0].n_in, stacks.A[0]);
  split_left(left(0), rows, sweep.layer[0].n_in);
  after(0);
  for (int l = 0; l < layers; ++l) {
    const Layer<T>& layer = sweep.layer[l];
    const Stack<T> stash = stacks.Z[l];
    const Products<T> z = stash.data == nullptr ? scratch_products(scratch, rows) : products_within(stash);
    const Epilogue<T> epilogue{&layer, &tile, nullptr, stash, stacks.A[l + 1], tile.count * z.row, z.row};
    const PanelFunction<T> push = push_function(epilogue);
    forward_product(
        sweep, l, weights, tile, stacks, z, scratch,
        [&](Columns columns, T* panel, Points points) { push(epilogue, panel, columns, points); },
        [&](int64_t p, int64_t row) {
          if (another || l + 1 < layers) split_left(left(l + 1), rows, layer.n_out, row, p);
        },
        meanwhile);
    after(l + 1);
  }
}

// The same to the end: meanwhile(layers, points) runs for all points after the last product.
template <class T, class After, class Meanwhile>
void forward_tile(const Sweep<T>& sweep, int layers, const PackedWeights<T>& weights, const Tile<T>& tile,
                  const TileStacks<T>& stacks, T* scratch, const After& after, const Meanwhile& meanwhile) {
  push_layers(sweep, layers, false, weights, tile, stacks, scratch, after, meanwhile);
  meanwhile(layers, Points{0, tile.count});
}

// Through all layers but the last one, and back through the activation before it (turn.h), for the group's one
// component. q lies where the last layer's inputs would.
template <class T, class Meanwhile>
Turn<T> turn_tile(const Sweep<T>& sweep, const PackedWeights<T>& weights, const Tile<T>& tile,
                  const TileStacks<T>& stacks, T* scratch, const Meanwhile& meanwhile) {
  const int top = sweep.layers - 2;
  const int64_t rows = tile.channels() * tile.count;
  pull_in_place(sweep, stacks);
  push_layers(sweep, top, true, weights, tile, stacks, scratch, [](int) {}, meanwhile);
  const Layer<T>& layer = sweep.layer[top];
  const Products<T> z = products_within(stacks.Z[top]);
  const Turn<T> turn{{&layer, &tile, tile.group->component, stacks.Z[top], stacks.D[top], tile.count * z.row, z.row},
                     &sweep.layer[top + 1],
                     stacks.A[top + 1]};
  const TurnFunction<T> there_and_back = turn_function(turn);
  forward_product(
      sweep, top, weights, tile, stacks, z, scratch,
      [&](Columns columns, T* panel, Points points) { there_and_back(turn, panel, columns, points); },
      [&](int64_t p, int64_t row) {
        if (top > sweep.first_active)
          split_left(left_of_layer(sweep, Pass::backward, top, rows, stacks.D[top], scratch), rows, layer.n_out, row,
                     p);
      },
      meanwhile);
  return turn;
}

// Columns of the seeds of one component, in rows of `row` elements, channel by channel.
template <class T>
void read_seeds(const Component& component, const Tile<T>& tile, Columns columns, T* g, int64_t row) {
  const core::Seeds<T> seed = core::seeds_of<T>(component, tile.first);
  for (int c = 0; c < component.channels; ++c)
    for (int64_t i = 0; i < tile.count; ++i)
      for (int64_t j = 0; j < columns.width; ++j) g[(c * tile.count + i) * row + j] = seed(c, i, columns.first + j);
}

// Without an activation the cotangents of a layer's outputs are D itself.
template <class T>
void copy_panel(const Epilogue<T>& e, T* g, Columns columns, Points points) {
  for (int c = 0; c < e.component->channels; ++c)
    for (int64_t i = points.first; i < points.first + points.count; ++i)
      for (int64_t j = 0; j < columns.width; ++j)
        e.to.data[c * e.to.channel + i * e.to.row + columns.first + j] = g[c * e.channel + i * e.row + j];
}

// From cotangents of layer l's outputs to D_l.
template <class T>
Epilogue<T> cotangent_epilogue(const Sweep<T>& sweep, int l, const Tile<T>& tile, const Component& component,
                               const TileStacks<T>& stacks, const Products<T>& cotangents) {
  return {&sweep.layer[l], &tile, &component, stacks.Z[l], stacks.D[l], tile.count * cotangents.row, cotangents.row};
}

// Cotangents from layer `from`, whose D is complete and split, down to layer `first`. When D_l is complete, after(l)
// and meanwhile(l, points) run as in push_layers; after(from) has run.
template <class T, class After, class Meanwhile>
void descend_tile(const Sweep<T>& sweep, const PackedWeights<T>& weights, const Tile<T>& tile,
                  const Component& component, int from, int first, const TileStacks<T>& stacks, T* scratch,
                  const After& after, const Meanwhile& meanwhile) {
  const int64_t rows = component.channels * tile.count;
  const auto left = [&](int l) { return left_of_layer(sweep, Pass::backward, l, rows, stacks.D[l], scratch); };
  const Products<T> cotangents = scratch_products(scratch, rows);
  for (int l = from; l > first; --l) {
    const Layer<T>& layer = sweep.layer[l];
    const Epilogue<T> below = cotangent_epilogue(sweep, l - 1, tile, component, stacks, cotangents);
    const PanelFunction<T> pull = below.stash.data == nullptr ? copy_panel<T> : pull_function(below);
    stack_product(
        StackProduct<T>{component.channels, tile.count, left(l), layer.n_out, layer.n_in, cotangents},
        [&](int64_t p) { return weights.panel(l, p); },
        [&](Columns columns, T* g, Points points) { pull(below, g, columns, points); },
        [&](int64_t p, int64_t row) {
          if (l - 1 > first) split_left(left(l - 1), rows, layer.n_in, row, p);
        },
        [&](Points points) { meanwhile(l, points); });
    after(l - 1);
  }
  meanwhile(first, Points{0, tile.count});
}

// The same from the seeds on.
template <class T, class After, class Meanwhile>
void backward_tile(const Sweep<T>& sweep, const PackedWeights<T>& weights, const Tile<T>& tile,
                   const Component& component, int first, const TileStacks<T>& stacks, T* scratch, const After& after,
                   const Meanwhile& meanwhile) {
  const int last = sweep.layers - 1;
  const int64_t rows = component.channels * tile.count, width = sweep.layer[last].n_out;
  const Products<T> cotangents = scratch_products(scratch, rows);
  const Epilogue<T> outputs = cotangent_epilogue(sweep, last, tile, component, stacks, cotangents);
  const PanelFunction<T> finish_outputs = outputs.stash.data == nullptr ? copy_panel<T> : pull_function(outputs);
  for (int64_t p = 0; p < ceil_div(width, kPanel<T>); ++p) {
    const Columns columns = panel_columns<T>(p, width);
    read_seeds(component, tile, columns, cotangents.at(p), cotangents.row);
    finish_outputs(outputs, cotangents.at(p), columns, Points{0, tile.count});
  }
  if (last > first) split_left(left_of_layer(sweep, Pass::backward, last, rows, stacks.D[last], scratch), rows, width);
  after(last);
  descend_tile(sweep, weights, tile, component, last, first, stacks, scratch, after, meanwhile);
}

template <class T>
int max_channels(const Sweep<T>& sweep) {
  int channels = 1;
  for (int g = 0; g < sweep.groups; ++g)
    channels = sweep.group[g].channels > channels ? sweep.group[g].channels : channels;
  return channels;
}

// All tiles of a sweep, counted through its groups.
template <class T>
class Tiling {
 public:
  Tiling(const Sweep<T>& sweep, int threads, int64_t tile_rows)
      : sweep_(sweep), size_(sweep.groups), start_(sweep.groups + 1) {
    start_[0] = 0;
    for (int g = 0; g < sweep.groups; ++g) {
      const Group<T>& group = sweep.group[g];
      size_[g] = tile_points(group, tile_rows, threads);
      start_[g + 1] = start_[g] + ceil_div(group.n, size_[g]);
      const int64_t rows = size_[g] * group.channels;
      max_rows_ = rows > max_rows_ ? rows : max_rows_;
      max_points_ = size_[g] > max_points_ ? size_[g] : max_points_;
    }
  }
  Tiling(const Sweep<T>& sweep, int threads) : Tiling(sweep, threads, tile_rows_of(sweep)) {}

  int64_t tiles() const { return start_[sweep_.groups]; }
  int64_t max_rows() const { return max_rows_; }
  int64_t max_points() const { return max_points_; }
  Tile<T> tile(int64_t task) const {
    const int g = part_of_task(start_.get(), task);
    const int64_t first = (task - start_[g]) * size_[g], left = sweep_.group[g].n - first;
    return {&sweep_.group[g], first, left < size_[g] ? left : size_[g]};
  }

 private:
  const Sweep<T>& sweep_;
  Buffer<int64_t> size_, start_;
  int64_t max_rows_ = 1, max_points_ = 1;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
