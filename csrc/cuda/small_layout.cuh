// What a block of the fused sweep keeps in shared memory, and from that the rows of its tile. Matrices stand
// feature-major, so that a product reads both operands as vectors.
//
//   weight      W of one layer, (depth, columns)
//   work        A or D of one layer, all channels: (features, rows), row = c·points + i
//   stash       Z of every layer that keeps it, likewise                   \
//   a_products  ⟨A⁽ᶜ⁾, A⁽ᶜ'⁾⟩ of every layer, (pairs, points), float64       > diag alone: others have stacks
//   terms       what each pair of channels adds to one layer's diagonal    /
#pragma once

#include "../core/channel_pairs.h"
#include "launch.cuh"
#include "limits.h"
#include "small_sweep.h"
#include "tile.cuh"

namespace ntkfast::cuda {

constexpr int kRowGroups = 8;  // of threads; each owns the same number of consecutive rows of a tile
static_assert(kRowGroups * (kSmallWidth / kSide) == kThreads, "every column of a row group has a thread");

// Between columns of W_k and of W_{k+1}: whole 16 bytes, an odd number of them, as between the rows of a tile; 8 by 4
// neighbours then lie on 32 banks.
NTK_HD constexpr int weight_pitch(int columns) { return ((columns + kSide - 1) / kSide | 1) * kSide; }

// Offsets and sizes in elements of T.
struct SmallLayout {
  int products;             // of one layer: pairs times points
  int terms;                // a_products begin at 0
  int weight, work, pitch;  // a feature's rows in `work` and `stash`
  int stash[kMaxLayers];    // of layer l; where there is none, `work`
  int elements;
};

template <class T>
int most_pair_points(const Sweep<T>& sweep, int rows) {
  int most = 0;
  for (int g = 0; g < sweep.groups; ++g) {
    const int channels = sweep.group[g].channels, products = core::pairs_of(channels) * (rows / channels);
    most = products > most ? products : most;
  }
  return most;
}

template <class T>
SmallLayout layout_of(const Sweep<T>& sweep, Task task, int rows) {
  SmallLayout at{};
  const int pitch = at.pitch = rows + 16 / static_cast<int>(sizeof(T));
  int end = 0, weight = 0, width = 0;
  const auto take = [&](int elements) {
    const int first = end, aligned = 16 / static_cast<int>(sizeof(T));
    end += (elements + aligned - 1) / aligned * aligned;
    return first;
  };
  const int doubles = static_cast<int>(sizeof(double) / sizeof(T));
  at.products = task == Task::diag ? most_pair_points(sweep, rows) : 0;
  take(sweep.layers * at.products * doubles);
  at.terms = take(at.products * doubles);
  for (int l = 0; l < sweep.layers; ++l) {
    const int n_in = static_cast<int>(sweep.layer[l].n_in), n_out = static_cast<int>(sweep.layer[l].n_out);
    const int forward = n_in * weight_pitch(n_out), backward = n_out * weight_pitch(n_in);
    const int elements = forward > backward ? forward : backward, wider = n_in > n_out ? n_in : n_out;
    weight = elements > weight ? elements : weight;
    width = wider > width ? wider : width;
  }
  at.weight = take(weight);
  at.work = take(width * pitch);
  for (int l = 0; l < sweep.layers; ++l)
    at.stash[l] = task == Task::diag && sweep.layer[l].keeps_stash
                      ? take(static_cast<int>(sweep.layer[l].n_out) * pitch)
                      : at.work;
  at.elements = end;
  return at;
}

// Blocks with tiles of so many rows. Backward, a block has one component; else a group's channels.
template <class T>
int64_t small_tiles(const Sweep<T>& sweep, Task task, int rows) {
  int64_t tiles = 0;
  for (int g = 0; g < sweep.groups; ++g) {
    const Group<T>& group = sweep.group[g];
    if (task != Task::backward) tiles += blocks_for(group.n, rows / group.channels);
    else
      for (int j = 0; j < group.components; ++j) tiles += blocks_for(group.n, rows / group.component[j].channels);
  }
  return tiles;
}

template <class T>
bool has_small_shape(const Sweep<T>& sweep) {
  if (sweep.layers > kMaxLayers) return false;
  for (int l = 0; l < sweep.layers; ++l)
    if (sweep.layer[l].n_in > kSmallWidth || sweep.layer[l].n_out > kSmallWidth) return false;
  return true;
}

// The largest tile that fits shared memory and leaves no multiprocessor without a block, or else the smallest that
// fits; 0 if none does.
template <class T>
int tile_rows_of(const Sweep<T>& sweep, Task task) {
  if (!has_small_shape(sweep)) return 0;
  const int64_t shared = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int64_t wanted = device_attribute(cudaDevAttrMultiProcessorCount);
  int channels = 1, found = 0;
  for (int g = 0; g < sweep.groups; ++g)
    channels = sweep.group[g].channels > channels ? sweep.group[g].channels : channels;
  for (int rows = 64; rows >= 16 && rows >= channels; rows /= 2) {
    if (layout_of(sweep, task, rows).elements * static_cast<int64_t>(sizeof(T)) > shared) continue;
    found = rows;
    if (small_tiles(sweep, task, rows) >= wanted) break;
  }
  return found;
}

}  // namespace ntkfast::cuda
