// Epilogues of the sweeps: one panel of neurons, all channels, while it is still in cache.
// In a file of their own, since they are compiled for every activation.
#pragma once

#include "params.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {

// A tile's view of a stack: channel c, point i of the tile, neuron j stands at data[c·channel + i·row + j].
template <class T>
struct Stack {
  T* data;
  int64_t channel, row;
};

// The points first … first + count − 1 of one group.
template <class T>
struct Tile {
  const Group<T>* group;
  int64_t first, count;
  int channels() const { return 1 + group->directions + group->collapsed; }
};

// Columns first … first + width − 1 of a layer, width ≤ kPanel.
struct Columns {
  int64_t first, width;
};

// h and stash from pre-activations z (C, count, kPanel), which lack the bias.
template <class T>
void push_panel(const Layer<T>& layer, const Tile<T>& tile, const T* z, Columns columns, Stack<T> h, Stack<T> stash);

// z̄ from cotangents g (C_j, count, kPanel) of one component and the layer's stash.
template <class T>
void pull_panel(const Layer<T>& layer, const Tile<T>& tile, const Component& component, const T* g, Columns columns,
                Stack<T> stash, Stack<T> zbar);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
