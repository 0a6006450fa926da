// The forward and the backward sweep of one tile of points through all layers.
//
//   forward    Z_l = A_l W_lᵀ (+ b on the value channel)      A_{l+1} = push_forward(Z_l)
//   backward   D_L = seeds, pulled back through a last activation      D_{l−1} = pull_back(D_l W_l, Z_{l−1})
//
// Stacks may be tile-local (streaming) or the caller's; a Stack hides which.
#pragma once

#include <cstring>

#include "activation_panel.h"
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

// Largest tile of a group: about `budget` rows, cut so that the tiles of a group are nearly equal and occupy every
// thread.
template <class T>
int64_t tile_points(const Group<T>& group, int64_t tile_rows, int threads) {
  const int64_t channels = 1 + group.directions + group.collapsed;
  const int64_t largest = tile_rows > channels ? tile_rows / channels : 1;
  int64_t tiles = ceil_div(group.n, largest);
  if (group.n >= 8 * threads) tiles = ceil_div(tiles, threads) * threads;
  return tiles > 0 ? ceil_div(group.n, tiles) : 1;
}

template <class T>
int64_t widest(const Sweep<T>& sweep) {
  int64_t width = sweep.layer[0].n_in;
  for (int l = 0; l < sweep.layers; ++l) width = sweep.layer[l].n_out > width ? sweep.layer[l].n_out : width;
  return width;
}

// Rows of a tile: its stacks stay inside L2 up to width 1000, and a panel of weights is read often enough from L1.
template <class T>
int64_t tile_rows_of(const Sweep<T>& sweep) {
  return sweep.tile_rows > 0 ? sweep.tile_rows : 128;
}

// C = A · panel for all channels of a tile, written as (channels, count, kPanel).
template <class T>
void tile_times_panel(int channels, int64_t count, Stack<T> a, const T* panel, int64_t width, int64_t K, T* c) {
  if (a.channel == count * a.row)
    return panel_product<T>(channels * count, a.data, a.row, panel, width, K, c, kPanel<T>);
  for (int ch = 0; ch < channels; ++ch)
    panel_product<T>(count, a.data + ch * a.channel, a.row, panel, width, K, c + ch * count * kPanel<T>, kPanel<T>);
}

inline Columns panel_columns(int64_t p, int64_t panel, int64_t columns) {
  const int64_t first = p * panel;
  return {first, columns - first < panel ? columns - first : panel};
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

// Through the first `layers` layers. after(l) runs when A_l, and with it Z_{l−1}, is complete; A_L is the output.
template <class T, class After>
void forward_tile(const Sweep<T>& sweep, int layers, const PackedWeights<T>& weights, const Tile<T>& tile,
                  const TileStacks<T>& stacks, T* scratch, const After& after) {
  fill_inputs(tile, sweep.layer[0].n_in, stacks.A[0]);
  after(0);
  for (int l = 0; l < layers; ++l) {
    const Layer<T>& layer = sweep.layer[l];
    for (int64_t p = 0; p < ceil_div(layer.n_out, kPanel<T>); ++p) {
      const Columns columns = panel_columns(p, kPanel<T>, layer.n_out);
      tile_times_panel<T>(tile.channels(), tile.count, stacks.A[l], weights.of(l) + p * kPanel<T> * layer.n_in,
                          columns.width, layer.n_in, scratch);
      push_panel(layer, tile, scratch, columns, stacks.A[l + 1], stacks.Z[l]);
    }
    after(l + 1);
  }
}

// Columns of the seeds of one component, as (C_j, count, kPanel).
template <class T>
void read_seeds(const Component& component, const Tile<T>& tile, Columns columns, T* g) {
  const T* seed = static_cast<const T*>(component.seed);
  for (int c = 0; c < component.channels; ++c)
    for (int64_t i = 0; i < tile.count; ++i)
      for (int64_t j = 0; j < columns.width; ++j)
        g[(c * tile.count + i) * kPanel<T> + j] =
            seed[c * component.seed_stride[0] + (tile.first + i) * component.seed_stride[1] +
                 (columns.first + j) * component.seed_stride[2]];
}

template <class T>
void copy_panel(int channels, int64_t count, const T* g, Columns columns, Stack<T> to) {
  for (int c = 0; c < channels; ++c)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < columns.width; ++j)
        to.data[c * to.channel + i * to.row + columns.first + j] = g[(c * count + i) * kPanel<T> + j];
}

// Cotangents down to layer `first`; after(l) runs when D_l is complete.
template <class T, class After>
void backward_tile(const Sweep<T>& sweep, const PackedWeights<T>& weights, const Tile<T>& tile,
                   const Component& component, int first, const TileStacks<T>& stacks, T* scratch, const After& after) {
  const int last = sweep.layers - 1;
  const auto finish = [&](int l, Columns columns) {
    if (stacks.Z[l].data == nullptr) copy_panel(component.channels, tile.count, scratch, columns, stacks.D[l]);
    else pull_panel(sweep.layer[l], tile, component, scratch, columns, stacks.Z[l], stacks.D[l]);
  };
  for (int64_t p = 0; p < ceil_div(sweep.layer[last].n_out, kPanel<T>); ++p) {
    const Columns columns = panel_columns(p, kPanel<T>, sweep.layer[last].n_out);
    read_seeds(component, tile, columns, scratch);
    finish(last, columns);
  }
  after(last);
  for (int l = last; l > first; --l) {
    const Layer<T>& layer = sweep.layer[l];
    for (int64_t p = 0; p < ceil_div(layer.n_in, kPanel<T>); ++p) {
      const Columns columns = panel_columns(p, kPanel<T>, layer.n_in);
      tile_times_panel<T>(component.channels, tile.count, stacks.D[l], weights.of(l) + p * kPanel<T> * layer.n_out,
                          columns.width, layer.n_out, scratch);
      finish(l - 1, columns);
    }
    after(l - 1);
  }
}

// The first layer whose parameters the Jacobian contains; sweeps stop there.
template <class T>
int first_active(const Sweep<T>& sweep) {
  for (int l = 0; l < sweep.layers; ++l)
    if (sweep.layer[l].weight_jacobian != T(0) || sweep.layer[l].bias_jacobian != T(0)) return l;
  return sweep.layers - 1;
}

template <class T>
int max_channels(const Sweep<T>& sweep) {
  int channels = 1;
  for (int g = 0; g < sweep.groups; ++g) {
    const int c = 1 + sweep.group[g].directions + sweep.group[g].collapsed;
    channels = c > channels ? c : channels;
  }
  return channels;
}

// All tiles of a sweep, counted through its groups.
template <class T>
class Tiling {
 public:
  Tiling(const Sweep<T>& sweep, int threads) : sweep_(sweep), size_(sweep.groups), start_(sweep.groups + 1) {
    start_.get()[0] = 0;
    for (int g = 0; g < sweep.groups; ++g) {
      const Group<T>& group = sweep.group[g];
      size_.get()[g] = tile_points(group, tile_rows_of(sweep), threads);
      start_.get()[g + 1] = start_.get()[g] + ceil_div(group.n, size_.get()[g]);
      const int64_t rows = size_.get()[g] * (1 + group.directions + group.collapsed);
      max_rows_ = rows > max_rows_ ? rows : max_rows_;
      max_points_ = size_.get()[g] > max_points_ ? size_.get()[g] : max_points_;
    }
  }
  int64_t tiles() const { return start_.get()[sweep_.groups]; }
  int64_t max_rows() const { return max_rows_; }
  int64_t max_points() const { return max_points_; }
  Tile<T> tile(int64_t task) const {
    int g = 0;
    while (task >= start_.get()[g + 1]) ++g;
    const int64_t first = (task - start_.get()[g]) * size_.get()[g], left = sweep_.group[g].n - first;
    return {&sweep_.group[g], first, left < size_.get()[g] ? left : size_.get()[g]};
  }

 private:
  const Sweep<T>& sweep_;
  Buffer<int64_t> size_, start_;
  int64_t max_rows_ = 1, max_points_ = 1;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
