#include "channel_tile.cuh"
#include "jvp.h"
#include "layers.cuh"
#include "parts.cuh"
#include "warp.cuh"

// (J v)_i = Σ_c ⟨D_i⁽ᶜ⁾, V A_i⁽ᶜ⁾⟩ + ⟨D_i⁽⁰⁾, v_b⟩
//
// A block takes a tile of points of one component and 64 outputs of one layer, multiplies, and reduces the product
// against D at once. What each such slice of outputs gives is added up by a second kernel, in one order.

namespace ntkfast::cuda {
namespace {

constexpr int kWarps = kThreads / kWarpLanes;

template <class T>
struct TangentLayer {
  FactorLayer<T> factors;
  const T *weight, *bias;  // of v; null: nothing
  int first_slice;         // of all layers
};

template <class T>
struct JvpParams {
  double* slices;  // (slices, residual_rows)
  int64_t residual_rows;
  int first_slice, count;  // of this launch
  TangentLayer<T> layer[kMaxLayers];
  Parts<T> parts;
};
static_assert(sizeof(JvpParams<double>) <= 4096, "kernels take at most 4 kB");

// What a lane adds to point i: its columns of the rows of the product that belong to the point.
template <class T>
__device__ __forceinline__ double lane_share(const TangentLayer<T>& layer, const Part<T>& part, const T* product,
                                             int first, int rows, int points, int64_t point, int i, int64_t column,
                                             int columns) {
  const int64_t n_out = layer.factors.n_out;
  const T* D = layer.factors.D + (part.d_row + point) * n_out + column;
  double total = 0;
#pragma unroll 1
  for (int j = lane(); j < columns; j += kWarpLanes) {
    T sum = 0, bias = 0;
#pragma unroll 1
    for (int c = 0; c < part.channels; ++c) {
      const int r = c * points + i - first;
      if (r >= 0 && r < rows) sum += D[c * part.n * n_out + j] * product[r * kPitch + j];
    }
    if (first == 0 && layer.bias != nullptr) bias = D[j] * layer.bias[column + j];
    total += double(sum) * layer.factors.weight_jacobian + double(bias) * layer.factors.bias_jacobian;
  }
  return total;
}

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) jvp_kernel(const JvpParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  const Part<T>& part = p.parts.part[tile.entry];
  const uint16_t* channel = p.parts.channel + part.first_channel;
  const int slice = p.first_slice + static_cast<int>(blockIdx.y);
  int l = 0;
  while (l + 1 < p.count && slice >= p.layer[l + 1].first_slice) ++l;
  const TangentLayer<T>& layer = p.layer[l];
  const int64_t n_in = layer.factors.n_in, column = int64_t(slice - layer.first_slice) * kTile;
  const int depth = layer.weight == nullptr ? 0 : static_cast<int>(n_in);
  const int columns = up_to_tile(layer.factors.n_out - column), rows = part.channels * tile.count;
  for (int first = 0; first < rows; first += kTile) {
    T sum[kSide][kSide] = {};
    const AlongDepthOfRows<T> inputs(depth, [&](int r) -> const T* {
      if (first + r >= rows) return nullptr;
      const int64_t row = part.a_row + channel[(first + r) / tile.count] * part.n + tile.first;
      return layer.factors.A + (row + (first + r) % tile.count) * n_in;
    });
    add_product(inputs, AlongDepth<T>{layer.weight + column * n_in, n_in, depth, columns}, depth, shared, sum);
    __syncthreads();  // the last slices have been read
    for_each_sum(sum, [&](int r, int j, T value) { shared[r * kPitch + j] = value; });
    __syncthreads();
#pragma unroll 1
    for (int i = warp(); i < tile.count; i += kWarps) {
      const int64_t point = tile.first + i;
      const double total = warp_sum(
          lane_share(layer, part, shared, first, up_to_tile(rows - first), tile.count, point, i, column, columns));
      if (lane() != 0) continue;
      // A second round comes only where one point has more channels than a tile has rows: then to its own sum.
      double& to = p.slices[int64_t(slice) * p.residual_rows + part.residual_row + point * part.stride];
      to = first == 0 ? total : to + total;
    }
    __syncthreads();  // the product has been read
  }
}

struct SumParams {
  const double* slices;
  double* out;
  int64_t count, rows;
};

__global__ void __launch_bounds__(kThreads) sum_kernel(const SumParams p) {
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= p.rows) return;
  double total = 0;
  for (int64_t s = 0; s < p.count; ++s) total += p.slices[s * p.rows + row];
  p.out[row] = total;
}

template <class T>
std::vector<TangentLayer<T>> layers_of(const Jvp<T>& p, int64_t& slices) {
  std::vector<TangentLayer<T>> layers;
  slices = 0;
  for (int l = 0; l < p.sweep.layers; ++l) {
    if (p.weight[l] == nullptr && p.bias[l] == nullptr) continue;
    layers.push_back({factor_layer(p.sweep, l), p.weight[l], p.bias[l], static_cast<int>(slices)});
    slices += blocks_for(p.sweep.layer[l].n_out, kTile);
  }
  return layers;
}

template <class T>
int64_t workspace_of(const Jvp<T>& p) {
  int64_t slices = 0;
  layers_of(p, slices);
  return slices * p.sweep.residual_rows;
}

template <class T>
int run(const Jvp<T>& p, double* workspace, void* stream) {
  if (most_channels(p.sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  int64_t slices = 0;
  const std::vector<TangentLayer<T>> layers = layers_of(p, slices);
  JvpParams<T> params{workspace, p.sweep.residual_rows, 0, 0, {}, {}};
  for (const Parts<T>& parts : tables_of(p.sweep, true, points_per_tile)) {
    params.parts = parts;
    const int code = for_each_piece(static_cast<int>(layers.size()), [&](int first, int count) {
      const size_t end = static_cast<size_t>(first + count);
      params.count = count;
      params.first_slice = count == 0 ? 0 : layers[first].first_slice;
      for (int l = 0; l < count; ++l) params.layer[l] = layers[first + l];
      const int64_t last = end < layers.size() ? layers[end].first_slice : slices;
      const Grid grid{parts.tiles, last - params.first_slice};
      return launch(jvp_kernel<T>, grid, Block{kThreads, 1, 1, kTileBytes<T>}, stream, params);
    });
    if (code != cudaSuccess) return code;
  }
  const int64_t rows = p.sweep.residual_rows;
  return launch(sum_kernel, Grid{blocks_for(rows, kThreads)}, Block{kThreads}, stream,
                SumParams{workspace, p.out, slices, rows});
}

}  // namespace

int64_t jvp_workspace(const Jvp<float>& p) { return workspace_of(p); }
int64_t jvp_workspace(const Jvp<double>& p) { return workspace_of(p); }
int jvp(const Jvp<float>& p, double* workspace, void* stream) { return run(p, workspace, stream); }
int jvp(const Jvp<double>& p, double* workspace, void* stream) { return run(p, workspace, stream); }

}  // namespace ntkfast::cuda
