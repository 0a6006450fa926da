// J v from stored factors on a CUDA device.
#pragma once

#include "../core/jvp.h"

namespace ntkfast::cuda {

// Elements of float64 that jvp needs beside its result.
int64_t jvp_workspace(const Jvp<float>& p);
int64_t jvp_workspace(const Jvp<double>& p);

int jvp(const Jvp<float>& p, double* workspace, void* stream);
int jvp(const Jvp<double>& p, double* workspace, void* stream);

}  // namespace ntkfast::cuda
