#include "channel_tile.cuh"
#include "jet_forward.h"
#include "neuron.cuh"
#include "parts.cuh"
#include "small_sweep.h"

// One layer for all channels of all groups:
//
//   Z = A Wᵀ (+ b on the value channel)        A' = push_forward(Z)

namespace ntkfast::cuda {
namespace {

template <class T>
struct ForwardGroup {
  const T *points, *beta, *omega;
  int64_t beta_stride, omega_stride;
  int64_t n, row, first_tile;
  int directions, collapsed, tile_points;

  __device__ __forceinline__ int channels() const { return 1 + directions + collapsed; }
  // Input of the first layer: channel c of point i.
  __device__ __forceinline__ const T* input(int c, int64_t i, int64_t d) const {
    return c == 0 ? points + i * d : beta + i * beta_stride + (c - 1) * d;
  }
};

template <class T>
struct ForwardParams {
  Layer<T> layer;
  const T* in;  // (rows, n_in); null: the inputs of the network
  T* out;       // (rows, n_out)
  T* stash;     // (rows, n_out) or null
  int64_t tiles;
  int count;
  ForwardGroup<T> group[kMaxGroups];
};
static_assert(sizeof(ForwardParams<double>) <= 4096, "kernels take at most 4 kB");

// Pre-activations of one tile, all channels: the product, and what the layer makes of it.
template <class T>
struct PreActivations {
  ChannelTile<T> product;
  T scale, bias;
  int i, j;
  __device__ __forceinline__ T operator()(int c) const { return product(c, i, j) * scale + (c == 0 ? bias : T(0)); }
};

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) forward_kernel(const ForwardParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const PointTile tile = point_tile(p.group, p.count, blockIdx.x);
  const ForwardGroup<T>& group = p.group[tile.entry];
  const int64_t n_in = p.layer.n_in, n_out = p.layer.n_out, column = int64_t(blockIdx.y) * kTile;
  const int columns = up_to_tile(n_out - column), depth = static_cast<int>(n_in);
  const ChannelTile<T> h = tile_in_stack(p.out, group.row, group.n, tile.first, n_out, column);
  ChannelTile<T> stash{};
  if (p.stash != nullptr) stash = tile_in_stack(p.stash, group.row, group.n, tile.first, n_out, column);
  const auto row_of = [&](int c, int i) {
    return p.in == nullptr ? group.input(c, tile.first + i, n_in)
                           : p.in + (group.row + c * group.n + tile.first + i) * n_in;
  };
  const AlongDepth<T> weights{p.layer.weight + column * n_in, n_in, depth, columns};
  const ChannelTile<T> product =
      channel_product(group.channels(), tile.count, columns, row_of, weights, depth, shared, h);
  for_each_neuron(tile.count, columns, [&](int i, int j) {
    const T bias = p.layer.bias == nullptr ? T(0) : p.layer.bias[column + j] * p.layer.bias_scale;
    push_neuron(
        p.layer.activation, p.layer.activation_params, group.directions, group.collapsed,
        group.omega + (tile.first + i) * group.omega_stride,
        PreActivations<T>{product, p.layer.weight_scale, bias, i, j},
        [&](int c, T value) {
          if (stash.at != nullptr) stash(c, i, j) = value;
        },
        [&](int c, T value) { h(c, i, j) = value; });
  });
}

// A_0: the points, then β. One thread an element of a channel.
template <class T>
__global__ void __launch_bounds__(kThreads) input_kernel(const ForwardParams<T> p) {
  const PointTile tile = point_tile(p.group, p.count, blockIdx.x);
  const ForwardGroup<T>& group = p.group[tile.entry];
  const int64_t d = p.layer.n_in;
  const int64_t size = tile.count * d;
  for (int c = 0; c < group.channels(); ++c)
    for (int64_t e = threadIdx.x; e < size; e += kThreads)
      p.out[(group.row + c * group.n + tile.first) * d + e] = group.input(c, tile.first + e / d, d)[e % d];
}

template <class T>
int for_each_table(const Sweep<T>& sweep, ForwardParams<T> p, void (*kernel)(ForwardParams<T>), int64_t columns,
                   size_t shared_bytes, void* stream) {
  for (int g = 0; g < sweep.groups;) {
    p.count = 0;
    p.tiles = 0;
    for (; g < sweep.groups && p.count < kMaxGroups; ++g) {
      const Group<T>& group = sweep.group[g];
      if (group.n == 0) continue;
      const int points = points_per_tile(group.channels);
      p.group[p.count++] = {group.points,       group.beta,      group.omega, group.beta_stride,
                            group.omega_stride, group.n,         group.row,   p.tiles,
                            group.directions,   group.collapsed, points};
      p.tiles += blocks_for(group.n, points);
    }
    const int code = launch(kernel, Grid{p.tiles, columns}, Block{kThreads, 1, 1, shared_bytes}, stream, p);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

template <class T>
int64_t workspace_of(const Sweep<T>& sweep) {
  if (sweep.A != nullptr || fits_small(sweep, Task::forward)) return 0;
  int64_t width = 0;
  for (int l = 1; l < sweep.layers; ++l) width = sweep.layer[l].n_in > width ? sweep.layer[l].n_in : width;
  return 2 * sweep.rows * width;
}

template <class T>
int run(const Sweep<T>& sweep, T* workspace, void* stream) {
  if (fits_small(sweep, Task::forward)) return small_sweep(sweep, Task::forward, stream);
  const bool keep = sweep.A != nullptr;
  const int64_t half = workspace_of(sweep) / 2;
  const auto inputs_of = [&](int l) { return keep ? sweep.A[l] : workspace + l % 2 * half; };
  if (keep) {
    const ForwardParams<T> p{sweep.layer[0], nullptr, sweep.A[0], nullptr, 0, 0, {}};
    const int code = for_each_table(sweep, p, input_kernel<T>, 1, 0, stream);
    if (code != cudaSuccess) return code;
  }
  for (int l = 0; l < sweep.layers; ++l) {
    const ForwardParams<T> p{sweep.layer[l],
                             l == 0 ? nullptr : inputs_of(l),
                             l + 1 < sweep.layers ? inputs_of(l + 1) : sweep.out,
                             keep ? sweep.Z[l] : nullptr,
                             0,
                             0,
                             {}};
    const int64_t columns = blocks_for(sweep.layer[l].n_out, kTile);
    const int code = for_each_table(sweep, p, forward_kernel<T>, columns, kTileBytes<T>, stream);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

int64_t jet_forward_workspace(const Sweep<float>& sweep) { return workspace_of(sweep); }
int64_t jet_forward_workspace(const Sweep<double>& sweep) { return workspace_of(sweep); }
int jet_forward(const Sweep<float>& sweep, float* workspace, void* stream) { return run(sweep, workspace, stream); }
int jet_forward(const Sweep<double>& sweep, double* workspace, void* stream) { return run(sweep, workspace, stream); }

}  // namespace ntkfast::cuda
