// Forward sweep on a CUDA device, one launch a layer or, of a small network (small_sweep.h), one in all: output
// channels, and the stacks A and Z where the caller gives them. All pointers but those of the structs themselves are
// the device's.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

// Elements that a sweep needs beside its results: without stacks of the caller, two that its layers use in turn; none
// where one launch does it all. Asks for the device that is current.
int64_t jet_forward_workspace(const Sweep<float>& sweep);
int64_t jet_forward_workspace(const Sweep<double>& sweep);

int jet_forward(const Sweep<float>& sweep, float* workspace, void* stream);
int jet_forward(const Sweep<double>& sweep, double* workspace, void* stream);

}  // namespace ntkfast::cuda
