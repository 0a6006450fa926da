// Jᵀx from stored factors on a CUDA device.
#pragma once

#include "../core/vjp.h"

namespace ntkfast::cuda {

// Elements that vjp needs beside its results.
int64_t vjp_workspace(const Vjp<float>& p);
int64_t vjp_workspace(const Vjp<double>& p);

int vjp(const Vjp<float>& p, float* workspace, void* stream);
int vjp(const Vjp<double>& p, double* workspace, void* stream);

}  // namespace ntkfast::cuda
