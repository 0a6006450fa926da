// The diagonal of the Gram matrix by layers, from stored factors, on a CUDA device.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

int factor_diag(const Sweep<float>& sweep, void* stream);
int factor_diag(const Sweep<double>& sweep, void* stream);

}  // namespace ntkfast::cuda
