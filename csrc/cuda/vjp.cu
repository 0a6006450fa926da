#include "layers.cuh"
#include "parts.cuh"
#include "tile.cuh"
#include "vjp.h"

// (Jᵀx)[W] = Σ_c (x ∘ D⁽ᶜ⁾)ᵀ A⁽ᶜ⁾        (Jᵀx)[b] = Σ_i x_i D_i⁽⁰⁾
//
// One product per layer whose inner index runs over all rows of D. A small W has few tiles, so the rows are split among
// several blocks for each; what the splits give is added up by a second kernel, in one order. Splits depend on sizes
// alone: the same numbers on every device.

namespace ntkfast::cuda {
namespace {

constexpr int64_t kBlocksWanted = 264;  // two on each multiprocessor of the largest devices
constexpr int64_t kLeastRows = 64;      // of a split
constexpr int64_t kMostSplits = 32;

template <class T>
struct GradientLayer {
  FactorLayer<T> factors;
  T *weight, *bias;  // null: not wanted
  int64_t offset;    // of its weight in a split
  int64_t first_tile;
};

template <class T>
struct VjpParams {
  const T* x;
  T* partial;    // (splits, size)
  int64_t size;  // elements of all weights
  int64_t rows;  // of D, of this table's components
  int splits, count;
  bool add;  // to what another table's components gave
  GradientLayer<T> layer[kMaxLayers];
  Parts<T> parts;
};
static_assert(sizeof(VjpParams<double>) <= 4096, "kernels take at most 4 kB");

// Adds rows from … to − 1 of this table to one tile: channel by channel, since the rows of one stand together.
template <class T>
__device__ __forceinline__ void add_rows(const VjpParams<T>& p, const FactorLayer<T>& layer, int64_t m, int64_t n,
                                         int64_t from, int64_t to, T* shared, T (&sum)[kSide][kSide]) {
  const int height = up_to_tile(layer.n_out - m), width = up_to_tile(layer.n_in - n);
  int64_t start = 0;  // row of the channel's first point among all
  for (int e = 0; e < p.parts.count; ++e) {
    const Part<T>& part = p.parts.part[e];
    for (int c = 0; c < part.channels; ++c, start += part.n) {
      const int64_t first = from > start ? from - start : 0, last = to < start + part.n ? to - start : part.n;
      if (first >= last) continue;
      const int64_t a_row = part.a_row + p.parts.channel[part.first_channel + c] * part.n + first;
      const int64_t d_row = part.d_row + c * part.n + first;
      const AcrossDepth<T> cotangents{layer.D + d_row * layer.n_out + m,
                                      layer.n_out,
                                      last - first,
                                      height,
                                      p.x + part.residual_row + first * part.stride,
                                      part.stride};
      const AcrossDepth<T> inputs{layer.A + a_row * layer.n_in + n, layer.n_in, last - first, width};
      add_product(cotangents, inputs, last - first, shared, sum);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) weight_kernel(const VjpParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  int l = 0;
  while (l + 1 < p.count && blockIdx.x >= p.layer[l + 1].first_tile) ++l;
  const GradientLayer<T>& gradient = p.layer[l];
  const FactorLayer<T>& layer = gradient.factors;
  const int64_t across = (layer.n_in + kTile - 1) / kTile, tile = blockIdx.x - gradient.first_tile;
  const int64_t m = tile / across * kTile, n = tile % across * kTile, split = blockIdx.y;
  T sum[kSide][kSide] = {};
  add_rows(p, layer, m, n, split * p.rows / p.splits, (split + 1) * p.rows / p.splits, shared, sum);
  T* to = p.partial + split * p.size + gradient.offset + m * layer.n_in + n;
  for_each_sum(sum, [&](int r, int c, T value) {
    if (m + r >= layer.n_out || n + c >= layer.n_in) return;
    T& entry = to[r * layer.n_in + c];
    entry = p.add ? entry + value : value;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) sum_kernel(const VjpParams<T> p) {
  const GradientLayer<T>& gradient = p.layer[blockIdx.y];
  const int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (gradient.weight == nullptr || e >= gradient.factors.n_in * gradient.factors.n_out) return;
  T total = 0;
  for (int s = 0; s < p.splits; ++s) total += p.partial[s * p.size + gradient.offset + e];
  gradient.weight[e] = total * gradient.factors.weight_jacobian;
}

constexpr int kBiases = 32;  // of a block; its threads share the rows of each
constexpr int kRowLanes = kThreads / kBiases;

template <class T>
__global__ void __launch_bounds__(kThreads) bias_kernel(const VjpParams<T> p) {
  __shared__ T shared[kRowLanes][kBiases];
  const GradientLayer<T>& gradient = p.layer[blockIdx.y];
  const FactorLayer<T>& layer = gradient.factors;
  const int column = static_cast<int>(threadIdx.x) % kBiases, row_lane = static_cast<int>(threadIdx.x) / kBiases;
  const int64_t m = int64_t(blockIdx.x) * kBiases + column;
  if (gradient.bias == nullptr) return;
  T sum = 0;
  for (int e = 0; e < p.parts.count && m < layer.n_out; ++e) {
    const Part<T>& part = p.parts.part[e];
    for (int64_t i = row_lane; i < part.n; i += kRowLanes)
      sum += p.x[part.residual_row + i * part.stride] * layer.D[(part.d_row + i) * layer.n_out + m];
  }
  shared[row_lane][column] = sum;
  __syncthreads();
  if (row_lane != 0 || m >= layer.n_out) return;
  T total = 0;
  for (int r = 0; r < kRowLanes; ++r) total += shared[r][column];
  total *= layer.bias_jacobian;
  gradient.bias[m] = p.add ? gradient.bias[m] + total : total;
}

template <class T>
struct Plan {
  std::vector<GradientLayer<T>> layers;
  int64_t size = 0, tiles = 0, splits = 1;
  int64_t most_outputs = 0, most_elements = 0;
};

template <class T>
Plan<T> plan_of(const Vjp<T>& p) {
  Plan<T> plan;
  for (int l = 0; l < p.sweep.layers; ++l) {
    const Layer<T>& layer = p.sweep.layer[l];
    if (p.weight[l] == nullptr && p.bias[l] == nullptr) continue;
    plan.layers.push_back({factor_layer(p.sweep, l), p.weight[l], p.bias[l], plan.size, plan.tiles});
    plan.most_outputs = layer.n_out > plan.most_outputs ? layer.n_out : plan.most_outputs;
    if (p.weight[l] == nullptr) continue;
    const int64_t elements = layer.n_in * layer.n_out;
    plan.size += elements;
    plan.tiles += blocks_for(layer.n_out, kTile) * blocks_for(layer.n_in, kTile);
    plan.most_elements = elements > plan.most_elements ? elements : plan.most_elements;
  }
  if (plan.tiles > 0) plan.splits = blocks_for(kBlocksWanted, plan.tiles);
  const int64_t useful = blocks_for(p.sweep.cotangent_rows, kLeastRows);
  plan.splits = plan.splits < kMostSplits ? plan.splits : kMostSplits;
  plan.splits = plan.splits < useful ? plan.splits : useful;
  plan.splits = plan.splits > 1 ? plan.splits : 1;
  return plan;
}

// The layers first … first + count − 1 of a plan, and the tiles of their weights.
template <class T>
int64_t take_layers(const Plan<T>& plan, int first, int count, VjpParams<T>& params) {
  const int64_t start = count == 0 ? 0 : plan.layers[first].first_tile;
  const size_t end = static_cast<size_t>(first + count);
  params.count = count;
  for (int l = 0; l < count; ++l) {
    params.layer[l] = plan.layers[first + l];
    params.layer[l].first_tile -= start;
  }
  return (end < plan.layers.size() ? plan.layers[end].first_tile : plan.tiles) - start;
}

template <class T>
int add_table(const Plan<T>& plan, VjpParams<T> params, void* stream) {
  params.rows = 0;
  for (int e = 0; e < params.parts.count; ++e) params.rows += params.parts.part[e].n * params.parts.part[e].channels;
  return for_each_piece(static_cast<int>(plan.layers.size()), [&](int first, int count) {
    const int64_t tiles = take_layers(plan, first, count, params);
    const int code =
        launch(weight_kernel<T>, Grid{tiles, plan.splits}, Block{kThreads, 1, 1, kTileBytes<T>}, stream, params);
    if (code != cudaSuccess) return code;
    return launch(bias_kernel<T>, Grid{blocks_for(plan.most_outputs, kBiases), count}, Block{kThreads}, stream, params);
  });
}

template <class T>
int run(const Vjp<T>& p, T* workspace, void* stream) {
  if (most_channels(p.sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  const Plan<T> plan = plan_of(p);
  VjpParams<T> params{p.x, workspace, plan.size, 0, static_cast<int>(plan.splits), 0, false, {}, {}};
  std::vector<Parts<T>> tables = tables_of(p.sweep, true, [](int) { return 1; });
  if (tables.empty()) tables.push_back({});  // no rows: the gradient is zero
  for (const Parts<T>& parts : tables) {
    params.parts = parts;
    const int code = add_table(plan, params, stream);
    if (code != cudaSuccess) return code;
    params.add = true;
  }
  return for_each_piece(static_cast<int>(plan.layers.size()), [&](int first, int count) {
    take_layers(plan, first, count, params);
    return launch(sum_kernel<T>, Grid{blocks_for(plan.most_elements, kThreads), count}, Block{kThreads}, stream,
                  params);
  });
}

}  // namespace

int64_t vjp_workspace(const Vjp<float>& p) {
  const Plan<float> plan = plan_of(p);
  return plan.size * plan.splits;
}
int64_t vjp_workspace(const Vjp<double>& p) {
  const Plan<double> plan = plan_of(p);
  return plan.size * plan.splits;
}
int vjp(const Vjp<float>& p, float* workspace, void* stream) { return run(p, workspace, stream); }
int vjp(const Vjp<double>& p, double* workspace, void* stream) { return run(p, workspace, stream); }

}  // namespace ntkfast::cuda
