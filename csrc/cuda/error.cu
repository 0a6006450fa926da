#include <cuda_runtime.h>

#include "error.h"

namespace ntkfast::cuda {

const char* error_message(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace ntkfast::cuda
