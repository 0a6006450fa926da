// What a block of the fused sweep does with the matrices in its shared memory (small_layout.cuh): loads weights,
// multiplies, takes inner products. No function here has a barrier.
#pragma once

#include "small_layout.cuh"
#include "warp.cuh"

namespace ntkfast::cuda {

constexpr int kSlices = 8;  // of an inner product: lanes that share its features
constexpr int kSmallWarps = kThreads / kWarpLanes;

// Where this thread stands, read anew: the compiler would keep what each phase of a sweep derives from it in registers
// through all of them, and spill.
struct Place {
  int warp, lane;
};

__device__ __forceinline__ Place place() {
  unsigned thread = threadIdx.x;
#if defined(__CUDA_ARCH__)  // what compiles for the host has no such register
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
#endif
  return {static_cast<int>(thread / kWarpLanes), static_cast<int>(thread % kWarpLanes)};
}

// A jet of a tile: channel c, point i, feature j.
template <class T>
struct SmallJet {
  T* at;
  int points, pitch;
  __device__ __forceinline__ T& operator()(int c, int i, int j) const { return at[j * pitch + c * points + i]; }
};

// Deals the entries (i, j), i < count, j < width, to the threads. A warp takes 4 i times 8 j where the width allows:
// whole sectors of a row-major matrix in memory, and distinct banks of a feature-major one.
class Entries {
 public:
  __device__ __forceinline__ Entries(int count, int width) : count_(count), width_(width) {
    const int bits = (width > 1) + (width > 2) + (width > 4) + (width > 8) + (width > 16) + (width > 32);
    const int lane_bits = bits < 3 ? bits : 3, warp_bits = bits - lane_bits;
    across_ = 1 << bits;
    along_ = kThreads >> bits;
    const Place at = place();
    j_ = (at.lane & ((1 << lane_bits) - 1)) + ((at.warp & ((1 << warp_bits) - 1)) << lane_bits);
    i_ = (at.lane >> lane_bits) + (at.warp >> warp_bits << (5 - lane_bits));
  }

  template <class Body>
  __device__ __forceinline__ void operator()(const Body& body) const {
#pragma unroll 1
    for (int j = j_; j < width_; j += across_)
#pragma unroll 1
      for (int i = i_; i < count_; i += along_) body(i, j);
  }

 private:
  int count_, width_, across_, along_, i_, j_;
};

// W into shared memory, as b(k, column): of the forward product W(column, k), of the backward product W(k, column).
// Four neighbours of a row of W at a time, or two or one where rows do not keep their alignment; a warp takes 16 rows
// times 2 of them, and several are fetched before the first is put down.
template <class T, int Width, bool Forward>
__device__ __forceinline__ void load_vectors(const T* weight, int n_in, int n_out, T* to) {
  struct alignas(Width == 4 ? 16 : Width * sizeof(T)) Vector {
    T value[Width];
  };
  constexpr int kBatch = 4, kRows = 16, kStep = 2 * Width * kSmallWarps;
  const Place at = place();
  const int pitch = weight_pitch(Forward ? n_out : n_in), row = at.lane % kRows;
#pragma unroll 1
  for (int j = (at.lane / kRows + 2 * at.warp) * Width; j < n_in; j += kStep)
#pragma unroll 1
    for (int first = row; first < n_out; first += kBatch * kRows) {
      Vector fetched[kBatch];
#pragma unroll
      for (int q = 0; q < kBatch; ++q)
        if (first + q * kRows < n_out)
          fetched[q] = *reinterpret_cast<const Vector*>(weight + (first + q * kRows) * n_in + j);
#pragma unroll
      for (int q = 0; q < kBatch; ++q) {
        const int i = first + q * kRows;
        if (i >= n_out) continue;
        if constexpr (Forward)
          for (int s = 0; s < Width; ++s) to[(j + s) * pitch + i] = fetched[q].value[s];
        else *reinterpret_cast<Vector*>(to + i * pitch + j) = fetched[q];
      }
    }
}

template <bool Forward, class T>
__device__ __forceinline__ void load_weight(const Layer<T>& layer, T* to) {
  const int n_in = static_cast<int>(layer.n_in), n_out = static_cast<int>(layer.n_out);
  const auto rows_keep = [&](int width, int bytes) {
    return n_in % width == 0 && reinterpret_cast<uintptr_t>(layer.weight) % bytes == 0;
  };
  if (rows_keep(4, 16)) load_vectors<T, 4, Forward>(layer.weight, n_in, n_out, to);
  else if (rows_keep(2, 2 * sizeof(T))) load_vectors<T, 2, Forward>(layer.weight, n_in, n_out, to);
  else load_vectors<T, 1, Forward>(layer.weight, n_in, n_out, to);
}

// Which group of rows and which of columns are a thread's. Lanes interleave, so that a vector that several of them read
// is fetched once for two quarters of a warp.
__device__ __forceinline__ int row_group(Place at) { return at.lane % 2 + at.lane / 16 * 2 + at.warp % 2 * 4; }
__device__ __forceinline__ int column_group(Place at) { return at.lane / 2 % 8 + at.warp / 2 * 8; }

template <class T, int Side>
struct alignas(Side % 4 == 0 ? 16 : 8) RowVector {
  T value[Side];
};

// sum(r, c) = Σ_k a(k, r) b(k, c), k in order, for the Side rows and kSide columns of this thread; none beyond the
// edge.
template <class T, int Side>
struct ThreadProduct {
  T sum[Side][kSide] = {};

  __device__ __forceinline__ void multiply(const T* a, int a_pitch, const T* b, int rows, int columns, int depth) {
    const Place at = place();
    const int row = row_group(at) * Side, column = column_group(at) * kSide, b_pitch = weight_pitch(columns);
    if (row >= rows || column >= columns) return;
    constexpr int kUnroll = 16 / Side;  // more would spill
    a += row;
    b += column;
#pragma unroll kUnroll
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
    const Place at = place();
    const int row = row_group(at) * Side, column = column_group(at) * kSide;
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

// Calls body(c, e, i, ⟨x⁽ᶜ⁾_i, x⁽ᵉ⁾_i⟩), e ≤ c, by one thread for each point. A lane sums its slice of the features in
// T; the slices are summed in float64.
template <class T, class Body>
__device__ __forceinline__ void inner_products(SmallJet<T> x, int channels, int width, const Body& body) {
  constexpr int kPoints = kWarpLanes / kSlices;
  const Place at = place();
  int task = 0;
#pragma unroll 1
  for (int c = 0; c < channels; ++c)
#pragma unroll 1
    for (int e = 0; e <= c; ++e)
#pragma unroll 1
      for (int first = 0; first < x.points; first += kPoints, ++task) {
        if (task % kSmallWarps != at.warp) continue;
        const int i = first + at.lane / kSlices;
        T slice = 0;
        if (i < x.points)
          for (int j = at.lane % kSlices; j < width; j += kSlices) slice += x(c, i, j) * x(e, i, j);
        double sum = slice;
#pragma unroll
        for (int bits = kSlices / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (i < x.points && at.lane % kSlices == 0) body(c, e, i, sum);
      }
}

}  // namespace ntkfast::cuda
