// The Gram matrix K = J J'ᵀ of stored factors on a CUDA device.
#pragma once

#include "../core/gram.h"

namespace ntkfast::cuda {

// Elements of device memory that a gram needs beside its arguments: a chunk of the explicit layers' columns, a side
// each.
int64_t gram_workspace(const Gram<float>& p);
int64_t gram_workspace(const Gram<double>& p);

int gram(const Gram<float>& p, float* workspace, void* stream);
int gram(const Gram<double>& p, double* workspace, void* stream);

}  // namespace ntkfast::cuda
