// C = A B on a CUDA device, by the tile that all sweeps are made of (tile.cuh).
#pragma once

#include "../core/gemm.h"

namespace ntkfast::cuda {

int gemm(const Gemm<float>& p, void* stream);
int gemm(const Gemm<double>& p, void* stream);

}  // namespace ntkfast::cuda
