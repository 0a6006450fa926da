// The register-blocked matrix product by vectors.
//
//   C[r, :] (+)= Σ_k a[r, k] B[k, :]      a: `count` rows;  B: one packed panel of kPanel<T> columns
//
// A panel is two vectors wide; the accumulators of a tile of its rows stay in registers. The sum over k runs in order,
// one accumulator an element, so that a result does not depend on how rows are cut into tiles.
#pragma once

#include <cstdint>

#include "vector.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;

// Rows of a tile. 14 × 2 accumulators, two loads of B and a broadcast fit 32 registers. Where registers are 16, twelve
// accumulators fit: 6 × 2, or 12 × 1 of half a panel, where 6 × 1 would wait for their own sums.
constexpr bool kManyRegisters = NTKFAST_VECTOR_BYTES == 64;
template <int Vectors>
constexpr int kRowsOfTile = kManyRegisters ? 14 : 12 / Vectors;
constexpr int kTileRows = kRowsOfTile<2>;  // of a whole panel

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Columns first … first + width − 1 of a matrix, width ≤ kPanel.
struct Columns {
  int64_t first, width;
};

// Those of panel q.
template <class T>
constexpr Columns panel_columns(int64_t q, int64_t columns) {
  const int64_t first = q * kPanel<T>;
  return {first, columns - first < kPanel<T> ? columns - first : kPanel<T>};
}

namespace by_vectors {

// Where a product begins, and what becomes of it: start(r, v) is vector v of row r before the first k, beside(k, rows)
// runs with each k of a tile of so many rows, finish(r, v, sum) takes the sum after the last one, below(rows) is the
// same for rows further down. Here: C = or += a B.
template <class T, bool Accumulate>
struct Matrix {
  T* c;
  int64_t ldc;

  Vec<T> start(int64_t r, int v) const { return Accumulate ? load<T>(c + r * ldc + v * kLanes<T>) : Vec<T>{}; }
  // The next tile's sums, a line each fourth k, where they stand below these: a gradient's come from L3.
  void beside(int64_t k, int rows) const {
    if constexpr (Accumulate) prefetch_to_write(reinterpret_cast<const char*>(c + rows * ldc) + k / 4 * kCacheLine);
  }
  void finish(int64_t r, int v, Vec<T> sum) const { store<T>(c + r * ldc + v * kLanes<T>, sum); }
  Matrix below(int64_t rows) const { return {c + rows * ldc, ldc}; }
};

// KMajor: a[r, k] stands at a[k·lda + r], else at a[r·lda + k]. Only the first Vectors of the panel's two vectors are
// computed. `out` is passed by value: through a reference its members would be read anew after every sum that is
// stored.
template <class T, int R, int Vectors, bool KMajor, class Out>
void tile(const T* a, int64_t lda, const T* b, int64_t K, const Out out) {
  Vec<T> sum[R][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[r][v] = out.start(r, v);
  // Every fourth row: the three after it are one, two and three strides away. The compiler, if it saw through, would
  // keep a register for the place of each row, of which there are more than registers.
  const T* fourth[(R + 3) / 4];
#pragma GCC unroll 4
  for (int r = 0; !KMajor && r < R; r += 4) {
    fourth[r / 4] = a + r * lda;
    asm("" : "+r"(fourth[r / 4]));
  }
  const int64_t strides[] = {0, lda, 2 * lda, 3 * lda};
  for (int64_t k = 0; k < K; ++k) {
    Vec<T> row[Vectors];
    out.beside(k, R);
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) row[v] = load<T>(b + k * kPanel<T> + v * kLanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T x = KMajor ? a[k * lda + r] : fourth[r / 4][strides[r % 4] + k];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) out.finish(r, v, sum[r][v]);
}

template <class T, int Vectors, bool KMajor, class Out, int R = kRowsOfTile<Vectors>>
void tile_of(int64_t count, const T* a, int64_t lda, const T* b, int64_t K, const Out& out) {
  if constexpr (R == 1) {
    tile<T, 1, Vectors, KMajor>(a, lda, b, K, out);
  } else if (count == R) {
    tile<T, R, Vectors, KMajor>(a, lda, b, K, out);
  } else {
    tile_of<T, Vectors, KMajor, Out, R - 1>(count, a, lda, b, K, out);
  }
}

// All `rows` rows of a against the first Vectors of a panel's two vectors, in tiles of nearly equal height.
template <int Vectors, bool KMajor, class T, class Out>
void vectors_product(int64_t rows, const T* a, int64_t lda, const T* panel, int64_t K, const Out& out) {
  const int64_t tiles = ceil_div(rows, kRowsOfTile<Vectors>);
  for (int64_t t = 0, r = 0; t < tiles; ++t) {
    const int64_t count = rows / tiles + (t < rows % tiles);
    tile_of<T, Vectors, KMajor>(count, a + r * (KMajor ? 1 : lda), lda, panel, K, out.below(r));
    r += count;
  }
}

// All `rows` rows of a against the first `width` columns of one panel. C may be written up to the panel's next vector:
// half a panel costs half as much.
template <bool KMajor, class T, class Out>
void panel_product(int64_t rows, const T* a, int64_t lda, const T* panel, int64_t width, int64_t K, const Out& out) {
  if (width > kLanes<T>) vectors_product<2, KMajor>(rows, a, lda, panel, K, out);
  else vectors_product<1, KMajor>(rows, a, lda, panel, K, out);
}

template <bool Accumulate, bool KMajor, class T>
void panel_product(int64_t rows, const T* a, int64_t lda, const T* panel, int64_t width, int64_t K, T* c, int64_t ldc) {
  panel_product<KMajor>(rows, a, lda, panel, width, K, Matrix<T, Accumulate>{c, ldc});
}

// panel[k][j] = factor(k) row(k)[j] for j < width, zero beyond.
template <class T, class Row, class Factor>
void pack_columns(const Row& row, int64_t width, int64_t K, const Factor& factor, T* panel) {
  for (int64_t k = 0; k < K; ++k)
    for (int v = 0; v < 2; ++v)
      store<T>(panel + k * kPanel<T> + v * kLanes<T>,
               load_up_to<T>(row(k) + v * kLanes<T>, width - v * kLanes<T>) * factor(k));
}

// panel[k][j] = scale W[j, k] for j < width, zero beyond: squares of W, turned over in registers.
template <class T>
void pack_rows(const T* W, int64_t ldw, int64_t width, int64_t K, T scale, T* panel) {
  constexpr int kSide = kLanes<T>;
  for (int64_t k = 0; k < K; k += kSide)
    for (int64_t j = 0; j < kPanel<T>; j += kSide) {
      Vec<T> square[kSide];
      for (int r = 0; r < kSide; ++r)
        square[r] = j + r < width ? load_up_to<T>(W + (j + r) * ldw + k, K - k) * scale : Vec<T>{};
      transpose(square);
      const int depth = K - k < kSide ? static_cast<int>(K - k) : kSide;
      for (int r = 0; r < depth; ++r) store<T>(panel + (k + r) * kPanel<T> + j, square[r]);
    }
}

}  // namespace by_vectors
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
