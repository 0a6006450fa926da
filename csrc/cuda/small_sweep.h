// Sweeps of a small network on a CUDA device in one launch: a block carries a tile of points through all layers and
// back, and what lies between the layers never leaves it. Small is a network with at most kMaxLayers layers, each at
// most kSmallWidth wide on either side, whose tile fits the shared memory of the device that is current.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

constexpr int kSmallWidth = 128;

enum class Task : int {
  forward,   // jet_forward: output channels, and the stacks A and Z where the caller gives them
  backward,  // jet_backward: D from the seeds and Z
  diag       // diag: both sweeps and the contraction, no stacks
};

// Stack rows of a block's tile; 0 where the network is not small. Without a device nothing fits.
int small_tile_rows(const Sweep<float>& sweep, Task task);
int small_tile_rows(const Sweep<double>& sweep, Task task);

template <class T>
bool fits_small(const Sweep<T>& sweep, Task task) {
  return small_tile_rows(sweep, task) > 0;
}

// Of a sweep that fits.
int small_sweep(const Sweep<float>& sweep, Task task, void* stream);
int small_sweep(const Sweep<double>& sweep, Task task, void* stream);

}  // namespace ntkfast::cuda
