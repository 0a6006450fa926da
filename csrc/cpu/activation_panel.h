// Epilogues of the sweeps: one panel of neurons, all channels, while it is still in cache.
// In a file of their own, since they are compiled for every activation.
#pragma once

#include "../core/params.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {

// A tile's view of a stack: channel c, point i of the tile, neuron j stands at data[c·channel + i·row + j]. Rows that
// epilogues read and write have room for whole vectors; beyond their last neuron they hold anything.
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
  int channels() const { return group->channels; }
};

// The points first … first + count − 1 of a tile.
struct Points {
  int64_t first, count;
};

template <class T>
struct Epilogue;

// Works on some columns and points of a layer, from products that stand as the epilogue says. Its calls run beside a
// product on matrix tiles, so all of it passes in registers: an argument that is stored piece by piece and loaded whole
// waits until everything before it has retired.
template <class T>
using PanelFunction = void (*)(const Epilogue<T>& epilogue, T* panel, Columns columns, Points points);

// What a layer's epilogue works on.
template <class T>
struct Epilogue {
  const Layer<T>* layer;
  const Tile<T>* tile;
  const Component* component;  // of the cotangents; null in forward sweeps
  Stack<T> stash, to;
  int64_t channel, row;  // product (c, i, j) of the panel stands at panel[c·channel + i·row + j]
};

// to = h from pre-activations z, which lack the bias; where there is a stash, z stands in it. Its value channel is
// replaced by what the pull-back starts from: z₀ with the bias, or the base value of σ (core::kStashesBase).
template <class T>
PanelFunction<T> push_function(const Epilogue<T>& epilogue);

// to = z̄ from cotangents g of one component and the layer's stash.
template <class T>
PanelFunction<T> pull_function(const Epilogue<T>& epilogue);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
