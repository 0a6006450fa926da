// Forward sweep on a CUDA device, one launch a layer: output channels, and the stacks A and Z where the caller gives
// them. All pointers but those of the structs themselves are the device's.
#pragma once

#include "../cpu/params.h"

namespace ntkfast::cuda {

// Elements that a sweep needs beside its results: without stacks of the caller, two that its layers use in turn.
template <class T>
int64_t jet_forward_workspace(const Sweep<T>& sweep) {
  int64_t width = 0;
  for (int l = 1; l < sweep.layers; ++l) width = sweep.layer[l].n_in > width ? sweep.layer[l].n_in : width;
  return sweep.A == nullptr ? 2 * sweep.rows * width : 0;
}

int jet_forward(const Sweep<float>& sweep, float* workspace, void* stream);
int jet_forward(const Sweep<double>& sweep, double* workspace, void* stream);

}  // namespace ntkfast::cuda
