// The product of one layer for all channels of a tile of points, where every thread of the block can read it: what an
// activation, which mixes channels, goes on from.
//
//   g(c, i, j) = Σ_k row(c, i)[k] b(k, j)        j < 64
#pragma once

#include "tile.cuh"

namespace ntkfast::cuda {

// As many points as fit one tile with all their channels.
constexpr int points_per_tile(int channels) { return channels < kTile ? kTile / channels : 1; }

// A view: channel c, point i of the tile, column j of the tile.
template <class T>
struct ChannelTile {
  T* at;
  int64_t channel, point;
  __device__ __forceinline__ T& operator()(int c, int i, int j) const { return at[c * channel + i * point + j]; }
};

// Of a ragged stack (rows, width): `row` is the first one of the group or component with n points.
template <class T>
__device__ __forceinline__ ChannelTile<T> tile_in_stack(T* stack, int64_t row, int64_t n, int64_t first, int64_t width,
                                                        int64_t column) {
  return {stack + (row + first) * width + column, n * width, width};
}

// The product is put in shared memory. One point with more channels than a tile has rows is put where the result is to
// go (`beyond`), which the block owns: whoever reads it may then write there in place.
template <class T, class RowOf, class B>
__device__ __forceinline__ ChannelTile<T> channel_product(int channels, int points, int columns, const RowOf& row_of,
                                                          const B& b, int depth, T* shared, ChannelTile<T> beyond) {
  const int rows = channels * points;
  const ChannelTile<T> to = rows <= kTile ? ChannelTile<T>{shared, int64_t(points) * kPitch, kPitch} : beyond;
  for (int first = 0; first < rows; first += kTile) {
    T sum[kSide][kSide] = {};
    const AlongDepthOfRows<T> a(depth, [&](int r) -> const T* {
      return first + r < rows ? row_of((first + r) / points, (first + r) % points) : nullptr;
    });
    add_product(a, b, depth, shared, sum);
    __syncthreads();  // the last slices have been read
    for_each_sum(sum, [&](int r, int j, T value) {
      if (first + r < rows && j < columns) to((first + r) / points, (first + r) % points, j) = value;
    });
  }
  __syncthreads();
  return to;
}

// Calls body(i, j) for the points and columns of a tile, once each among the threads of the block.
template <class Body>
__device__ __forceinline__ void for_each_neuron(int points, int columns, const Body& body) {
#pragma unroll 1
  for (int e = static_cast<int>(threadIdx.x); e < points * kTile; e += kThreads)
    if (e % kTile < columns) body(e / kTile, e % kTile);
}

}  // namespace ntkfast::cuda
