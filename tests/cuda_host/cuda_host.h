// CUDA kernels on the host: one fiber per CUDA thread, one operating-system thread per block in flight.
//
//   g++ -std=c++17 -x c++ -I tests/cuda_host csrc/cuda/<op>.cu
//
// compiles the very file that nvcc compiles: this folder's cuda_runtime.h takes the toolkit's place. What it finds:
//
//   missing barrier       wrong results; CUDA_HOST_REVERSE=1 runs the threads of a block in the opposite order, so that
//   a
//                         dependence that one order happens to satisfy breaks in the other
//   divergent barrier     threads of one block wait at different __syncthreads(): aborts, naming both places
//   deadlock              no thread of a block can go on: aborts
//   unwritten memory      dynamic shared memory starts as NaN in every block
//   out of bounds         with -fsanitize=address, in global and in dynamic shared memory
//
// What it needs: kernels launched through cudaLaunchKernelEx, dynamic shared memory named through
// NTKFAST_DYNAMIC_SHARED, warp operations with the full mask, no tensor-core or asynchronous-copy instructions. It says
// nothing about time, coalescing, or the order of memory operations between threads that no barrier separates.
//
// CUDA_HOST_THREADS=k runs k blocks at a time (default: one per processor). CUDA_HOST_MULTIPROCESSORS and
// CUDA_HOST_SHARED_BYTES are what the device says of itself (default: those of an H100).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "block.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
// One copy per operating-system thread, and such a thread runs one block at a time.
#define __shared__ static thread_local

#define NTKFAST_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(cuda_host::block().dynamic_shared.data())

#define CUDA_HOST_STRING_(x) #x
#define CUDA_HOST_STRING(x) CUDA_HOST_STRING_(x)
#define __syncthreads() cuda_host::wait_for_block(__FILE__ ":" CUDA_HOST_STRING(__LINE__))

typedef void* cudaStream_t;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
  }
  return "unrecognized error code";
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace cuda_host {

inline int setting(const char* name, int otherwise) {
  const char* wanted = std::getenv(name);
  return wanted ? std::atoi(wanted) : otherwise;
}

// Dynamic shared memory that a device lends to a block, to kernels that asked for it.
inline int shared_bytes() { return setting("CUDA_HOST_SHARED_BYTES", 227 * 1024); }

// What a kernel may use of it: one thread launches at a time.
inline std::map<const void*, size_t>& opted_in() {
  static std::map<const void*, size_t> bytes;
  return bytes;
}
inline size_t shared_bytes_of(const void* kernel) {
  const auto found = opted_in().find(kernel);
  return found == opted_in().end() ? 48 * 1024 : found->second;
}

// The limits of every device.
inline bool launchable(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 g = config.gridDim, b = config.blockDim;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  return g.x > 0 && g.y > 0 && g.z > 0 && g.x <= 2147483647u && g.y <= 65535u && g.z <= 65535u && threads > 0 &&
         threads <= 1024 && b.z <= 64 && config.dynamicSmemBytes <= shared_bytes_of(kernel);
}

inline unsigned blocks_in_flight(uint64_t blocks) {
  const unsigned threads = unsigned(setting("CUDA_HOST_THREADS", int(std::thread::hardware_concurrency())));
  return unsigned(std::min<uint64_t>(std::max(1u, threads), blocks));
}

template <class Kernel>
void run_grid(const cudaLaunchConfig_t& config, const Kernel& kernel) {
  const dim3 grid = config.gridDim;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  std::atomic<uint64_t> next{0};
  const auto work = [&] {
    BlockRun block(grid, config.blockDim, config.dynamicSmemBytes, kernel);
    for (uint64_t i = next++; i < blocks; i = next++)
      block.run({unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)});
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < blocks_in_flight(blocks); ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
}

}  // namespace cuda_host

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? cuda_host::setting("CUDA_HOST_MULTIPROCESSORS", 132)
                                                       : cuda_host::shared_bytes();
  return cudaSuccess;
}

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || bytes > cuda_host::shared_bytes()) return cudaErrorInvalidValue;
  cuda_host::opted_in()[kernel] = size_t(bytes);
  return cudaSuccess;
}

// Returns when the grid is done: on the host every stream is in order and synchronous.
template <class... Params, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Arguments&&... arguments) {
  if (!cuda_host::launchable(*config, reinterpret_cast<const void*>(kernel))) return cudaErrorInvalidConfiguration;
  cuda_host::run_grid(*config, [&] { kernel(Params(arguments)...); });
  return cudaSuccess;
}

template <class T>
T __ldg(const T* at) {
  return *at;
}

// Products that are never contracted with a sum. Through memory, past which no compiler contracts.
inline float __fmul_rn(float a, float b) {
  const volatile float product = a * b;
  return product;
}
inline double __dmul_rn(double a, double b) {
  const volatile double product = a * b;
  return product;
}

// Blocks run concurrently, so this has to be atomic here too.
template <class T>
T atomicAdd(T* at, T value) {
  T seen, sum;
  __atomic_load(at, &seen, __ATOMIC_RELAXED);
  do sum = seen + value;
  while (!__atomic_compare_exchange(at, &seen, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return seen;
}
