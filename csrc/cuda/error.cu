#include <cuda_runtime.h>

#include "error.h"

namespace ntkfast::cuda {

const char* error_message(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

int synchronize(void* stream) { return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); }

}  // namespace ntkfast::cuda
