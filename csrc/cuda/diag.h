// The diagonal of the Gram matrix by layers on a CUDA device: both sweeps and the contraction for a chunk of points at
// a time, whose stacks lie in a workspace; of a small network (small_sweep.h) one launch without any.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

// Elements for chunks of `sweep.tile_rows` stack rows (0: as many as 256 MB hold), at least one point; none where one
// launch does it all. Asks for the device that is current.
int64_t diag_workspace(const Sweep<float>& sweep);
int64_t diag_workspace(const Sweep<double>& sweep);

int diag(const Sweep<float>& sweep, float* workspace, void* stream);
int diag(const Sweep<double>& sweep, double* workspace, void* stream);

}  // namespace ntkfast::cuda
