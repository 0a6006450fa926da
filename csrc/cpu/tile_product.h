// The register-blocked matrix product on which every sweep and contraction stands.
//
//   C[r, :] (+)= Σ_k a[r, k] B[k, :]      a: `count` rows;  B: one packed panel of kPanel<T> columns
//
// A panel is two vectors wide; up to kTileRows rows of accumulators stay in registers. The sum over k runs in order,
// one accumulator an element, so that a result does not depend on how rows are cut into tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vector.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;

// 14 × 2 accumulators, two loads of B and a broadcast fit 32 registers; 6 × 2 fit 16.
constexpr int kTileRows = NTKFAST_VECTOR_BYTES == 64 ? 14 : 6;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of a packed matrix with `columns` columns and K rows, in elements.
template <class T>
constexpr int64_t packed_size(int64_t columns, int64_t K) {
  return ceil_div(columns, kPanel<T>) * kPanel<T> * K;
}

// KMajor: a[r, k] stands at a[k·lda + r], else at a[r·lda + k]. Only the first Vectors of the panel's two vectors are
// computed and written.
template <class T, int R, int Vectors, bool Accumulate, bool KMajor>
void tile(const T* a, int64_t lda, const T* b, int64_t K, T* c, int64_t ldc) {
  Vec<T> sum[R][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[r][v] = Accumulate ? load<T>(c + r * ldc + v * kLanes<T>) : Vec<T>{};
  for (int64_t k = 0; k < K; ++k) {
    Vec<T> row[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) row[v] = load<T>(b + k * kPanel<T> + v * kLanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T x = KMajor ? a[k * lda + r] : a[r * lda + k];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) store<T>(c + r * ldc + v * kLanes<T>, sum[r][v]);
}

template <class T, bool Accumulate, bool KMajor = false, int Vectors = 2, int R = kTileRows>
void tile_of(int64_t count, const T* a, int64_t lda, const T* b, int64_t K, T* c, int64_t ldc) {
  if constexpr (R == 1) {
    tile<T, 1, Vectors, Accumulate, KMajor>(a, lda, b, K, c, ldc);
  } else if (count == R) {
    tile<T, R, Vectors, Accumulate, KMajor>(a, lda, b, K, c, ldc);
  } else {
    tile_of<T, Accumulate, KMajor, Vectors, R - 1>(count, a, lda, b, K, c, ldc);
  }
}

// Half a panel costs half as much.
template <class T, bool Accumulate, bool KMajor>
void tile_of_width(int64_t width, int64_t count, const T* a, int64_t lda, const T* b, int64_t K, T* c, int64_t ldc) {
  if (width > kLanes<T>) tile_of<T, Accumulate, KMajor, 2>(count, a, lda, b, K, c, ldc);
  else tile_of<T, Accumulate, KMajor, 1>(count, a, lda, b, K, c, ldc);
}

// All `rows` rows of a against the first `width` columns of one panel, in tiles of nearly equal height. C may be
// written up to the panel's next vector.
template <class T>
void panel_product(int64_t rows, const T* a, int64_t lda, const T* panel, int64_t width, int64_t K, T* c, int64_t ldc) {
  const int64_t tiles = ceil_div(rows, kTileRows);
  for (int64_t t = 0, r = 0; t < tiles; ++t) {
    const int64_t count = rows / tiles + (t < rows % tiles);
    tile_of_width<T, false, false>(width, count, a + r * lda, lda, panel, K, c + r * ldc, ldc);
    r += count;
  }
}

// Panel p of B = s·W (k runs over the rows of W): panel[k][j] = s W[k, p·kPanel + j], zero beyond the last column.
template <class T>
void pack_columns(const T* W, int64_t ldw, int64_t columns, int64_t K, T scale, int64_t p, T* panel) {
  const int64_t first = p * kPanel<T>, width = columns - first < kPanel<T> ? columns - first : kPanel<T>;
  for (int64_t k = 0; k < K; ++k) {
    const T* row = W + k * ldw + first;
    for (int64_t j = 0; j < width; ++j) panel[k * kPanel<T> + j] = scale * row[j];
    for (int64_t j = width; j < kPanel<T>; ++j) panel[k * kPanel<T> + j] = T(0);
  }
}

// Panel p of B = s·Wᵀ (k runs along the rows of W): panel[k][j] = s W[p·kPanel + j, k]. Blocks of k keep the strided
// reads in L1.
template <class T>
void pack_rows(const T* W, int64_t ldw, int64_t rows, int64_t K, T scale, int64_t p, T* panel) {
  constexpr int64_t kBlock = 16;
  const int64_t first = p * kPanel<T>, width = rows - first < kPanel<T> ? rows - first : kPanel<T>;
  T block[kBlock][kPanel<T>];
  for (int64_t k0 = 0; k0 < K; k0 += kBlock) {
    const int64_t depth = K - k0 < kBlock ? K - k0 : kBlock;
    for (int64_t j = 0; j < width; ++j) {
      const T* row = W + (first + j) * ldw + k0;
      for (int64_t k = 0; k < depth; ++k) block[k][j] = scale * row[k];
    }
    for (int64_t k = 0; k < depth; ++k) {
      T* to = panel + (k0 + k) * kPanel<T>;
      for (int64_t j = 0; j < kPanel<T>; ++j) to[j] = j < width ? block[k][j] : T(0);
    }
  }
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
