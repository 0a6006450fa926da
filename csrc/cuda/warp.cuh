// Sums over the lanes of a warp; all 32 take part.
#pragma once

#include "launch.cuh"

namespace ntkfast::cuda {

constexpr int kWarpLanes = 32;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpLanes; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpLanes; }

// The same sum in every lane, in one order.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int bits = kWarpLanes / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}

}  // namespace ntkfast::cuda
