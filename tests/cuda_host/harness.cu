// Small kernels, sound and faulty, that show what the host run computes and what it catches: ./harness <name>.
// A sound case prints its result; a fault must abort, or print wrong numbers, or be reported by AddressSanitizer.
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../csrc/cuda/launch.cuh"

namespace {

using ntkfast::cuda::Block;
using ntkfast::cuda::Grid;
using ntkfast::cuda::launch;

constexpr int kThreads = 70;  // two warps and a part of one

struct Params {
  const float* in;
  float* out;
  int n;
};

// out[b] = Σ in over block b, by warp shuffles, static shared memory and one barrier; out[gridDim.x] = Σ over all
// blocks.
__global__ void block_sum(Params p) {
  __shared__ float partial[3];
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  float sum = i < p.n ? p.in[i] : 0.0f;
  const unsigned present = __ballot_sync(0xffffffffu, 1);
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_down_sync(0xffffffffu, sum, unsigned(offset));
    const unsigned source = threadIdx.x % warpSize + unsigned(offset);
    if (source < 32 && (present >> source & 1u)) sum += other;
  }
  if (threadIdx.x % warpSize == 0) partial[threadIdx.x / warpSize] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    p.out[blockIdx.x] = partial[0] + partial[1] + partial[2];
    atomicAdd(&p.out[gridDim.x], p.out[blockIdx.x]);
  }
}

// out = in moved by one place. Without the barrier, thread t reads what thread t − 1 may not have written yet.
template <bool WithBarrier>
__global__ void shift(Params p) {
  NTKFAST_DYNAMIC_SHARED(float, tile);
  const int t = int(threadIdx.x);
  tile[t] = p.in[t];
  if (WithBarrier) __syncthreads();
  p.out[t] = tile[t > 0 ? t - 1 : 0];
}

__global__ void divergent_barrier(Params p) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    p.out[threadIdx.x] = 1.0f;
    __syncthreads();
  }
}

// Lane 0 waits for the block, the other lanes of its warp wait for lane 0.
__global__ void deadlock(Params) {
  if (threadIdx.x == 0) __syncthreads();
  __syncwarp();
}

__global__ void partial_mask(Params p) {
  if (threadIdx.x < 16) p.out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1);
}

__global__ void out_of_bounds(Params p) { p.out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f; }

__global__ void shared_out_of_bounds(Params p) {
  NTKFAST_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 1] = p.in[threadIdx.x];
}

int run(const char* name, Params p, Grid grid, Block block) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("block_sum")) return launch(block_sum, grid, block, nullptr, p);
  if (is("shift")) return launch(shift<true>, grid, block, nullptr, p);
  if (is("missing_barrier")) return launch(shift<false>, grid, block, nullptr, p);
  if (is("divergent_barrier")) return launch(divergent_barrier, grid, block, nullptr, p);
  if (is("deadlock")) return launch(deadlock, grid, block, nullptr, p);
  if (is("partial_mask")) return launch(partial_mask, grid, block, nullptr, p);
  if (is("out_of_bounds")) return launch(out_of_bounds, grid, block, nullptr, p);
  if (is("shared_out_of_bounds")) return launch(shared_out_of_bounds, grid, block, nullptr, p);
  if (is("large_shared")) return launch(shift<true>, grid, Block{kThreads, 1, 1, 60 * 1024}, nullptr, p);
  if (is("shared_too_large")) return launch(shift<true>, grid, Block{kThreads, 1, 1, 228 * 1024}, nullptr, p);
  if (is("empty_grid")) return launch(block_sum, Grid{0}, block, nullptr, p);
  if (is("grid_too_large")) return launch(block_sum, Grid{int64_t(1) << 32}, block, nullptr, p);
  if (is("grid_too_deep")) return launch(block_sum, Grid{1, 70000}, block, nullptr, p);
  if (is("block_too_large")) return launch(block_sum, grid, Block{1025}, nullptr, p);
  return -1;
}

}  // namespace

// ./harness <name> [blocks]: the input is 1, 2, 3, …; block_sum has a ragged last block.
int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int blocks = argc > 2 ? std::atoi(argv[2]) : 1;
  const int n = blocks * kThreads - (blocks > 1 ? 13 : 0);
  std::vector<float> in(n), out(std::strcmp(argv[1], "block_sum") == 0 ? blocks + 1 : kThreads);
  for (int i = 0; i < n; ++i) in[i] = float(i + 1);
  if (std::strcmp(argv[1], "out_of_bounds") == 0) out.resize(kThreads - 1), out.shrink_to_fit();
  const int code =
      run(argv[1], {in.data(), out.data(), n}, Grid{blocks}, Block{kThreads, 1, 1, kThreads * sizeof(float)});
  std::printf("code %d", code);
  for (float value : out) std::printf(" %g", value);
  std::printf("\n");
}
