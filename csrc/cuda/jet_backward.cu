#include "channel_tile.cuh"
#include "jet_backward.h"
#include "neuron.cuh"
#include "seeds.cuh"
#include "small_sweep.h"

// One layer for all channels of all components:
//
//   G = D W        D' = pull_back(G, Z)
//
// and at the top G = seeds; D' = G where the last layer has no activation.

namespace ntkfast::cuda {
namespace {

template <class T>
struct BackwardParams {
  const T* D;       // (cotangent_rows, depth): of the layer above
  const T* weight;  // (depth, width): of the layer above
  T scale;          // of its weight
  T* out;           // (cotangent_rows, width)
  const T* stash;   // (rows, width), of this layer; null: it keeps none
  int64_t depth, width;
  core::Activation activation;  // of this layer
  core::ActivationParams<T> activation_params;
  Parts<T> parts;
  SeedTable<T> seeds;
};
static_assert(sizeof(BackwardParams<double>) <= 4096, "kernels take at most 4 kB");

// Cotangents before the activation, scaled: either a product or seeds.
template <class T>
struct Cotangents {
  ChannelTile<T> product;
  T scale;
  int i, j;
  __device__ __forceinline__ T operator()(int c) const { return product(c, i, j) * scale; }
};

template <class T>
struct SeedsAt {
  core::Seeds<T> seed;
  int64_t i, j;
  __device__ __forceinline__ T operator()(int c) const { return seed(c, i, j); }
};

// D' of a tile; cotangents(i, j) gives g of one neuron, by channels.
template <class T, class Of>
__device__ __forceinline__ void pull_tile(const BackwardParams<T>& p, const Part<T>& part, const PointTile& tile,
                                          int64_t column, int columns, ChannelTile<T> zbar, const Of& cotangents) {
  if (p.stash == nullptr) {
    for_each_neuron(tile.count, columns, [&](int i, int j) {
      const auto g = cotangents(i, j);
      for (int c = 0; c < part.channels; ++c) zbar(c, i, j) = g(c);
    });
    return;
  }
  const ChannelMap map{p.parts.channel + part.first_channel, part.directions, part.collapsed, part.group_directions};
  const auto stash = tile_in_stack(p.stash, part.a_row, part.n, tile.first, p.width, column);
  for_each_neuron(tile.count, columns, [&](int i, int j) {
    pull_neuron(
        p.activation, p.activation_params, map, part.omega + (tile.first + i) * part.omega_stride,
        [&](int c) { return stash(c, i, j); }, cotangents(i, j), [&](int c, T value) { zbar(c, i, j) = value; });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) backward_kernel(const BackwardParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  const Part<T>& part = p.parts.part[tile.entry];
  const int64_t column = int64_t(blockIdx.y) * kTile;
  const int columns = up_to_tile(p.width - column);
  const ChannelTile<T> zbar = tile_in_stack(p.out, part.d_row, part.n, tile.first, p.width, column);
  const AcrossDepth<T> weights{p.weight + column, p.width, p.depth, columns};
  const auto row_of = [&](int c, int i) { return p.D + (part.d_row + c * part.n + tile.first + i) * p.depth; };
  const ChannelTile<T> product =
      channel_product(part.channels, tile.count, columns, row_of, weights, static_cast<int>(p.depth), shared, zbar);
  pull_tile(p, part, tile, column, columns, zbar, [&](int i, int j) { return Cotangents<T>{product, p.scale, i, j}; });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kTileBlocks) seed_kernel(const BackwardParams<T> p) {
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  const Part<T>& part = p.parts.part[tile.entry];
  const int64_t column = int64_t(blockIdx.y) * kTile;
  const core::Seeds<T>& seed = p.seeds.of[tile.entry];
  const ChannelTile<T> zbar = tile_in_stack(p.out, part.d_row, part.n, tile.first, p.width, column);
  pull_tile(p, part, tile, column, up_to_tile(p.width - column), zbar,
            [&](int i, int j) { return SeedsAt<T>{seed, tile.first + i, column + j}; });
}

// Layer l as the one to pull back through; D and weight are those of the layer above, if there is one.
template <class T>
BackwardParams<T> params_of(const Sweep<T>& sweep, int l, const Parts<T>& parts) {
  BackwardParams<T> p{};
  const Layer<T>& layer = sweep.layer[l];
  if (l + 1 < sweep.layers) {
    const Layer<T>& above = sweep.layer[l + 1];
    p.D = sweep.D[l + 1];
    p.weight = above.weight;
    p.scale = above.weight_scale;
    p.depth = above.n_out;
  }
  p.out = sweep.D[l];
  p.stash = sweep.Z[l];
  p.width = layer.n_out;
  p.activation = layer.activation;
  p.activation_params = layer.activation_params;
  p.parts = parts;
  return p;
}

template <class T>
int run(const Sweep<T>& sweep, void* stream) {
  if (most_channels(sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  if (fits_small(sweep, Task::backward)) return small_sweep(sweep, Task::backward, stream);
  const int last = sweep.layers - 1, first = sweep.first_active;
  for (const Parts<T>& parts : tables_of(sweep, false, points_per_tile)) {
    const auto grid = [&](int l) { return Grid{parts.tiles, blocks_for(sweep.layer[l].n_out, kTile)}; };
    BackwardParams<T> top = params_of(sweep, last, parts);
    top.seeds = seed_table(sweep, parts);
    int code = launch(seed_kernel<T>, grid(last), Block{kThreads}, stream, top);
    for (int l = last - 1; l >= first && code == cudaSuccess; --l)
      code =
          launch(backward_kernel<T>, grid(l), Block{kThreads, 1, 1, kTileBytes<T>}, stream, params_of(sweep, l, parts));
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

int jet_backward(const Sweep<float>& sweep, void* stream) { return run(sweep, stream); }
int jet_backward(const Sweep<double>& sweep, void* stream) { return run(sweep, stream); }

}  // namespace ntkfast::cuda
