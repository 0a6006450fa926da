// What a block of the fused sweep does with the matrices in its shared memory (small_layout.cuh): loads weights,
// multiplies, takes inner products. No function here has a barrier.
#pragma once

#include "small_layout.cuh"
#include "warp.cuh"

namespace ntkfast::cuda {

constexpr int kSlices = 8;  // of an inner product: lanes that share its features
constexpr int kSmallWarps = kThreads / kWarpLanes;

// A jet of a tile: channel c, point i, feature j.
template <class T>
struct SmallJet {
  T* at;
  int points, pitch;
  __device__ __forceinline__ T& operator()(int c, int i, int j) const { return at[j * pitch + c * points + i]; }
};

// Calls body(i, j), j < width, once each among the threads. A warp takes 4 i times 8 j where the width allows: whole
// sectors of a row-major matrix in memory, and distinct banks of a feature-major one.
template <int Unroll, class Body>
__device__ __forceinline__ void for_each_entry(int count, int width, const Body& body) {
  int across = 1;  // threads along j
  while (across < width && across < kSlices * kSmallWarps) across *= 2;
  const int lanes = across < kSlices ? across : kSlices, warps = across / lanes;
  const int j0 = lane() % lanes + warp() % warps * lanes;
  const int i0 = lane() / lanes + warp() / warps * (kWarpLanes / lanes);
#pragma unroll 1
  for (int j = j0; j < width; j += across) {
#pragma unroll Unroll
    for (int i = i0; i < count; i += kThreads / across) body(i, j);
  }
}

// b(k, column) of the forward product is W(column, k), of the backward product W(k, column).
template <class T>
__device__ __forceinline__ void load_forward(const Layer<T>& layer, T* to) {
  const int n_in = static_cast<int>(layer.n_in), n_out = static_cast<int>(layer.n_out), pitch = weight_pitch(n_out);
  for_each_entry<8>(n_out, n_in, [&](int i, int j) { to[j * pitch + i] = __ldg(layer.weight + i * n_in + j); });
}
template <class T>
__device__ __forceinline__ void load_backward(const Layer<T>& layer, T* to) {
  const int n_in = static_cast<int>(layer.n_in), n_out = static_cast<int>(layer.n_out), pitch = weight_pitch(n_in);
  for_each_entry<8>(n_out, n_in, [&](int i, int j) { to[i * pitch + j] = __ldg(layer.weight + i * n_in + j); });
}

// First row group and column of this thread. Lanes interleave, so that a vector that several of them read is fetched
// once for two quarters of a warp.
__device__ __forceinline__ int row_group() { return lane() % 2 + lane() / 16 * 2 + warp() % 2 * 4; }
__device__ __forceinline__ int column_group() { return lane() / 2 % 8 + warp() / 2 * 8; }

template <class T, int Side>
struct alignas(Side % 4 == 0 ? 16 : 8) RowVector {
  T value[Side];
};

// sum(r, c) = Σ_k a(k, r) b(k, c), k in order, for the Side rows and kSide columns of this thread; none beyond the edge.
template <class T, int Side>
struct ThreadProduct {
  T sum[Side][kSide] = {};

  __device__ __forceinline__ void multiply(const T* a, int a_pitch, const T* b, int rows, int columns, int depth) {
    const int row = row_group() * Side, column = column_group() * kSide, b_pitch = weight_pitch(columns);
    if (row >= rows || column >= columns) return;
    a += row;
    b += column;
#pragma unroll 4
    for (int k = 0; k < depth; ++k) {
      const auto left = *reinterpret_cast<const RowVector<T, Side>*>(a + k * a_pitch);
      const auto right = *reinterpret_cast<const Quad<T>*>(b + k * b_pitch);
#pragma unroll
      for (int r = 0; r < Side; ++r)
#pragma unroll
        for (int c = 0; c < kSide; ++c) sum[r][c] += left.value[r] * right.value[c];
    }
  }

  // to(column, row) = scale · sum, and on the first `value_rows` rows, the value channel, + bias_of(column).
  template <class BiasOf>
  __device__ __forceinline__ void put(T* to, int pitch, T scale, int rows, int columns, int value_rows,
                                      const BiasOf& bias_of) {
    const int row = row_group() * Side, column = column_group() * kSide;
    if (row >= rows) return;
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      if (column + c >= columns) return;
      const T bias = bias_of(column + c);
      RowVector<T, Side> z;
#pragma unroll
      for (int r = 0; r < Side; ++r) z.value[r] = sum[r][c] * scale + (row + r < value_rows ? bias : T(0));
      *reinterpret_cast<RowVector<T, Side>*>(to + (column + c) * pitch + row) = z;
    }
  }
};

// Calls body(c, e, i, ⟨x⁽ᶜ⁾_i, x⁽ᵉ⁾_i⟩), e ≤ c, by one thread for each point. A lane sums its slice of the features in T;
// the slices are summed in float64.
template <class T, class Body>
__device__ __forceinline__ void inner_products(SmallJet<T> x, int channels, int width, const Body& body) {
  constexpr int kPoints = kWarpLanes / kSlices;
  int task = 0;
#pragma unroll 1
  for (int c = 0; c < channels; ++c)
#pragma unroll 1
    for (int e = 0; e <= c; ++e)
#pragma unroll 1
      for (int first = 0; first < x.points; first += kPoints, ++task) {
        if (task % kSmallWarps != warp()) continue;
        const int i = first + lane() / kSlices;
        T slice = 0;
        if (i < x.points)
          for (int j = lane() % kSlices; j < width; j += kSlices) slice += x(c, i, j) * x(e, i, j);
        double sum = slice;
#pragma unroll
        for (int bits = kSlices / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (i < x.points && lane() % kSlices == 0) body(c, e, i, sum);
      }
}

}  // namespace ntkfast::cuda
