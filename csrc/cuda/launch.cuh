// The one way to launch a kernel: nothing to do is success, a grid beyond the hardware's limits is an error and never a
// truncated launch, and the launch's own error code is returned. Codes are those of cudaError_t; 0 is success.
//
// Kernels take one params struct by value. Dynamic shared memory is named through NTKFAST_DYNAMIC_SHARED alone.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#if !defined(NTKFAST_DYNAMIC_SHARED)
#define NTKFAST_DYNAMIC_SHARED(T, name)                       \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  T* name = reinterpret_cast<T*>(name##_raw)
#endif

namespace ntkfast::cuda {

constexpr int64_t kMaxGridX = 2147483647;
constexpr int64_t kMaxGridYZ = 65535;

constexpr int64_t blocks_for(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }

// Sizes as counted, not yet narrowed to what the hardware takes.
struct Grid {
  int64_t x, y = 1, z = 1;
};

struct Block {
  int x, y = 1, z = 1;
  size_t shared_bytes = 0;  // dynamic shared memory
};

constexpr size_t kSharedBytes = 48 * 1024;  // of every kernel; more is asked for, kernel by kernel and device by device

// Of the current device; 0 where there is none.
inline int64_t device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, device);
  if (error == cudaSuccess) return value;
  static_cast<void>(cudaGetLastError());
  return 0;
}

template <class Params>
int launch(void (*kernel)(Params), Grid grid, Block block, void* stream, const Params& params) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const bool fits =
      grid.x > 0 && grid.x <= kMaxGridX && grid.y > 0 && grid.y <= kMaxGridYZ && grid.z > 0 && grid.z <= kMaxGridYZ;
  if (!fits) return cudaErrorInvalidConfiguration;

  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  config.blockDim =
      dim3(static_cast<unsigned>(block.x), static_cast<unsigned>(block.y), static_cast<unsigned>(block.z));
  config.dynamicSmemBytes = block.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaError_t error = cudaSuccess;
  if (block.shared_bytes > kSharedBytes)
    // All that the device lends: of two threads that launch a kernel, one could lower what the other has just set.
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)));
  if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, params);
  // The runtime also remembers a failed launch: forget it, or the next check of somebody else's kernel reports ours.
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  return error;
}

}  // namespace ntkfast::cuda
