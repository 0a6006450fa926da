#include "gemm.h"
#include "tile.cuh"

namespace ntkfast::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) gemm_kernel(const Gemm<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const int64_t row = int64_t(blockIdx.x) * kTile, column = int64_t(blockIdx.y) * kTile;
  const int height = up_to_tile(p.rows - row), width = up_to_tile(p.columns - column);
  const int depth = static_cast<int>(p.depth);
  T sum[kSide][kSide] = {};
  add_product(AlongDepth<T>{p.a + row * p.depth, p.depth, depth, height},
              AcrossDepth<T>{p.b + column, p.columns, p.depth, width}, depth, shared, sum);
  for_each_sum(sum, [&](int r, int c, T value) {
    if (r < height && c < width) p.out[(row + r) * p.columns + column + c] = value;
  });
}

template <class T>
int run(const Gemm<T>& p, void* stream) {
  const Grid grid{blocks_for(p.rows, kTile), blocks_for(p.columns, kTile)};
  return launch(gemm_kernel<T>, grid, Block{kThreads, 1, 1, kTileBytes<T>}, stream, p);
}

}  // namespace

int gemm(const Gemm<float>& p, void* stream) { return run(p, stream); }
int gemm(const Gemm<double>& p, void* stream) { return run(p, stream); }

}  // namespace ntkfast::cuda
