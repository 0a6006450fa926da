// A tile of a matrix product, held in the registers of one block:
//
//   sum(r, c) += Σ_k a(r, k) b(k, c)        r, c < 64
//
// Slices of both operands, 64 bytes deep, pass through shared memory, k-major; the next slice is fetched while one is
// multiplied. A thread owns 4 × 4 sums. Products and sums are those of T, never TF32, and the sum over k has one order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "launch.cuh"

namespace ntkfast::cuda {

constexpr int kTile = 64;  // rows and columns of a tile
constexpr int kThreads = 256;
constexpr int kSide = 4;           // rows and columns of a thread
constexpr int kPitch = kTile + 4;  // a row in shared memory: whole 16 bytes, and not all rows on the same banks
static_assert(kThreads * kSide * kSide == kTile * kTile, "every sum has a thread");

// Of a slice, and what a thread fetches of it.
template <class T>
constexpr int kDepth = 64 / sizeof(T);
template <class T>
constexpr int kFetches = kTile * kDepth<T> / kThreads;

// Two slices of operands, later a tile of sums.
template <class T>
constexpr size_t kTileBytes = sizeof(T) * kPitch * (kTile > 2 * kDepth<T> ? kTile : 2 * kDepth<T>);

// Blocks that share a multiprocessor: 128 registers a thread, so that sums and activations are held without spilling.
constexpr int kTileBlocks = 2;

// First row and first column of this thread's sums: a warp has 4 by 8 of the 16 by 16 quads. Lanes interleave, so that
// of either operand neighbours read the same 16 bytes, and a half-warp's 8 different ones lie on 32 banks: two accesses
// to shared memory an operand instead of four.
__device__ __forceinline__ int thread_row() {
  const int t = static_cast<int>(threadIdx.x);
  return (t % 2 + t / 16 % 2 * 2 + t / 32 % 4 * 4) * kSide;
}
__device__ __forceinline__ int thread_column() {
  const int t = static_cast<int>(threadIdx.x);
  return (t / 2 % 8 + t / 128 * 8) * kSide;
}
static_assert(kThreads == 256 && kTile / kSide == 16, "8 warps, 4 along the rows and 2 along the columns");

// Where a thread t fetches of an operand whose k runs along memory: element t % kDepth of a slice, for every row of the
// tile whose number is t / kDepth modulo kThreads / kDepth.
template <class T>
__device__ __forceinline__ int along_row(int q) {
  return static_cast<int>(threadIdx.x) / kDepth<T> + q * (kThreads / kDepth<T>);
}
template <class T>
__device__ __forceinline__ int along_slot(int q) {
  return static_cast<int>(threadIdx.x) % kDepth<T> * kPitch + along_row<T>(q);
}

// k runs along memory: element (r, k) stands at first[r · pitch + k].
template <class T>
struct AlongDepth {
  const T* first;
  int64_t pitch;
  int depth;
  int rows;  // r beyond them is zero

  __device__ __forceinline__ T fetch(int q, int from) const {
    const int k = from + static_cast<int>(threadIdx.x) % kDepth<T>;
    return along_row<T>(q) < rows && k < depth ? first[along_row<T>(q) * pitch + k] : T(0);
  }
  __device__ __forceinline__ int slot(int q) const { return along_slot<T>(q); }
};

// The same for rows that stand anywhere.
template <class T>
struct AlongDepthOfRows {
  const T* row[kFetches<T>];  // of this thread; null beyond the edge
  int depth;

  // row_of(r) is where row r begins, or null.
  template <class RowOf>
  __device__ __forceinline__ AlongDepthOfRows(int depth, const RowOf& row_of) : depth(depth) {
#pragma unroll
    for (int q = 0; q < kFetches<T>; ++q) row[q] = row_of(along_row<T>(q));
  }
  __device__ __forceinline__ T fetch(int q, int from) const {
    const int k = from + static_cast<int>(threadIdx.x) % kDepth<T>;
    return row[q] != nullptr && k < depth ? row[q][k] : T(0);
  }
  __device__ __forceinline__ int slot(int q) const { return along_slot<T>(q); }
};

// An operand whose rows (of a; columns of b) run along memory: element (r, k) stands at first[k · pitch + r]. A thread
// fetches r = t % 64 of a slice for k = t / 64 + 4 q. The factor of slice element k is factor[k · factor_pitch].
template <class T>
struct AcrossDepth {
  const T* first;
  int64_t pitch, depth;
  int rows;  // r beyond them is zero
  const T* factor = nullptr;
  int64_t factor_pitch = 0;

  __device__ __forceinline__ T fetch(int q, int64_t from) const {
    const int r = static_cast<int>(threadIdx.x) % kTile;
    const int64_t k = from + threadIdx.x / kTile + q * (kThreads / kTile);
    if (r >= rows || k >= depth) return T(0);
    const T value = first[k * pitch + r];
    return factor == nullptr ? value : value * factor[k * factor_pitch];
  }
  __device__ __forceinline__ int slot(int q) const {
    return (static_cast<int>(threadIdx.x) / kTile + q * (kThreads / kTile)) * kPitch +
           static_cast<int>(threadIdx.x) % kTile;
  }
};

template <class T>
struct alignas(16) Quad {
  T value[kSide];
};

template <class T>
__device__ __forceinline__ void multiply_slice(const T* a, const T* b, T (&sum)[kSide][kSide]) {
#pragma unroll
  for (int k = 0; k < kDepth<T>; ++k) {
    const Quad<T> rows = *reinterpret_cast<const Quad<T>*>(a + k * kPitch + thread_row());
    const Quad<T> columns = *reinterpret_cast<const Quad<T>*>(b + k * kPitch + thread_column());
#pragma unroll
    for (int r = 0; r < kSide; ++r)
#pragma unroll
      for (int c = 0; c < kSide; ++c) sum[r][c] += rows.value[r] * columns.value[c];
  }
}

// All threads of the block take part, with the same depth (features count in int, rows of a stack in int64). Whoever
// wants `shared` afterwards waits first.
template <class T, class A, class B, class Depth>
__device__ __forceinline__ void add_product(const A& a, const B& b, Depth depth, T* shared, T (&sum)[kSide][kSide]) {
  T next_a[kFetches<T>], next_b[kFetches<T>];
  T* slice_a = shared;
  T* slice_b = shared + kDepth<T> * kPitch;
  const auto fetch = [&](Depth from) {
#pragma unroll
    for (int q = 0; q < kFetches<T>; ++q) {
      next_a[q] = a.fetch(q, from);
      next_b[q] = b.fetch(q, from);
    }
  };
  fetch(0);
  for (Depth from = 0; from < depth; from += kDepth<T>) {
    __syncthreads();  // what shared memory held has been read
#pragma unroll
    for (int q = 0; q < kFetches<T>; ++q) {
      slice_a[a.slot(q)] = next_a[q];
      slice_b[b.slot(q)] = next_b[q];
    }
    __syncthreads();
    if (from + kDepth<T> < depth) fetch(from + kDepth<T>);
    multiply_slice(slice_a, slice_b, sum);
  }
}

// Where a tile meets an edge, the rest of it is left out.
__device__ __forceinline__ int up_to_tile(int64_t left) { return left < kTile ? static_cast<int>(left) : kTile; }

// Calls body(row, column, sum) for the sums of this thread.
template <class T, class Body>
__device__ __forceinline__ void for_each_sum(T (&sum)[kSide][kSide], const Body& body) {
#pragma unroll
  for (int r = 0; r < kSide; ++r)
#pragma unroll
    for (int c = 0; c < kSide; ++c) body(thread_row() + r, thread_column() + c, sum[r][c]);
}

}  // namespace ntkfast::cuda
