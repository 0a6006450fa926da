// Rows that are linear in the output channels on a CUDA device, and what is asked for of their gradient, diagonal and
// factors. Stacks that are not asked for lie in a workspace.
#pragma once

#include "../core/linear_sweep.h"

namespace ntkfast::cuda {

int64_t linear_sweep_workspace(const LinearSweep<float>& p);
int64_t linear_sweep_workspace(const LinearSweep<double>& p);

int linear_sweep(const LinearSweep<float>& p, float* workspace, void* stream);
int linear_sweep(const LinearSweep<double>& p, double* workspace, void* stream);

}  // namespace ntkfast::cuda
