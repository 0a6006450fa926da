// The dense product on which every sweep and contraction stands:
//
//   C[r, :] (+)= Σ_k a[r, k] B[k, :]      a: a left operand of any number of rows;  B: a packed panel of kPanel columns
//
// On the matrix tiles where the level has them, the numbers are floats and K is worth their padding; by vectors
// otherwise. The sum over k has one order, so that a result does not depend on how rows are cut.
#pragma once

#include <type_traits>

#include "split_product.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {

#if !NTKFAST_AMX
namespace by_tiles {  // for the compiler's eyes: nothing of this is called
constexpr int64_t kSide = 16, kTileDepth = 32, kSomeRows = 4, kStepsPerBlock = 2;
int64_t panel_size(int64_t K);
int64_t left_size(int64_t rows, int64_t K);
void split_some(const float* a, int64_t lda, int64_t rows, int64_t K, int64_t first, int64_t depth_block, float* to);
void split_rows(const float* a, int64_t lda, int64_t rows, int64_t K, float* to);
void split_columns(const float* a, int64_t lda, int64_t columns, int64_t K, float* to);
void pack_rows(const float* W, int64_t ldw, int64_t width, int64_t K, float scale, float* panel);
template <class Row, class Factor>
void pack_columns(const Row& row, int64_t width, int64_t K, const Factor& factor, float* panel, int64_t piece);
template <bool Accumulate>
void panel_product(int64_t rows, const float* left, const float* panel, int64_t width, int64_t K, float* c, int64_t ldc,
                   const Aside& aside);
}  // namespace by_tiles
#endif

template <class T>
constexpr bool kHasTiles = NTKFAST_AMX && std::is_same_v<T, float>;

// Shallower products lose more by padding, and by waking the tiles, than they gain. ntkfast/tiles.py has it too.
constexpr int64_t kLeastDepth = 112;

template <class T>
constexpr bool on_tiles(int64_t K) {
  return kHasTiles<T> && K >= kLeastDepth;
}

// Rows of a left operand that are split together; a panel's columns are as many as a block of k.
constexpr int64_t kSplitRows = by_tiles::kSomeRows;
static_assert(!NTKFAST_AMX || kPanel<float> == by_tiles::kTileDepth);

// ---- right operands: panels of kPanel<T> columns

// Memory of a panel, in elements.
template <class T>
int64_t panel_size(int64_t K) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) return by_tiles::panel_size(K);
  return kPanel<T> * K;
}

// Memory of a packed matrix with `columns` columns and K rows.
template <class T>
int64_t packed_size(int64_t columns, int64_t K) {
  return ceil_div(columns, kPanel<T>) * panel_size<T>(K);
}

// Into how many pieces the packing of a panel may be cut.
template <class T>
int64_t pack_pieces(int64_t K) {
  return on_tiles<T>(K) ? 2 * ceil_div(K, by_tiles::kTileDepth) : 1;
}

// One piece of panel[k][j] = factor(k) row(k)[j] for j < width ≤ kPanel, zero beyond.
template <class T, class Row, class Factor>
void pack_columns(const Row& row, int64_t width, int64_t K, const Factor& factor, T* panel, int64_t piece) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) return by_tiles::pack_columns(row, width, K, factor, panel, piece);
  by_vectors::pack_columns<T>(row, width, K, factor, panel);
}

// All of it.
template <class T, class Row, class Factor>
void pack_columns(const Row& row, int64_t width, int64_t K, const Factor& factor, T* panel) {
  for (int64_t piece = 0; piece < pack_pieces<T>(K); ++piece) pack_columns<T>(row, width, K, factor, panel, piece);
}

// panel[k][j] = scale W[j, k] for j < width ≤ kPanel, zero beyond.
template <class T>
void pack_rows(const T* W, int64_t ldw, int64_t width, int64_t K, T scale, T* panel) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) return by_tiles::pack_rows(W, ldw, width, K, scale, panel);
  by_vectors::pack_rows(W, ldw, width, K, scale, panel);
}

// ---- left operands: read as they stand, or split first

// Where a[r, k] stands: at data[r·row + k], or of a transposed operand at data[k·row + r]. `split` is memory of
// left_size elements that hold the operand's parts, if it goes on tiles.
template <class T>
struct Left {
  const T* data;
  int64_t row;
  T* split;
};

// Grows with both.
template <class T>
int64_t left_size(int64_t rows, int64_t K) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) return by_tiles::left_size(rows, K);
  return 0;
}

// Splits kSplitRows rows of an operand, and of these the k that are the columns of one panel.
template <class T>
void split_left(const Left<T>& a, int64_t rows, int64_t K, int64_t first, int64_t panel) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) by_tiles::split_some(a.data, a.row, rows, K, first, panel, a.split);
}

// Splits all of it.
template <class T>
void split_left(const Left<T>& a, int64_t rows, int64_t K) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K))
      for (int64_t r = 0; r < rows; r += by_tiles::kSide)
        by_tiles::split_rows(a.data + r * a.row, a.row, rows - r, K, a.split + by_tiles::left_size(r, K));
}

// The operand aᵀ: K rows of a, as many columns as the operand has rows.
template <class T>
Left<T> left_of_columns(const T* a, int64_t lda, int64_t rows, int64_t K, T* memory) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K))
      for (int64_t r = 0; r < rows; r += by_tiles::kSide)
        by_tiles::split_columns(a + r, lda, rows - r, K, memory + by_tiles::left_size(r, K));
  return {a, lda, memory};
}

// ---- products

// All `rows` rows of a left operand against the first `width` columns of a panel. C may be written up to the panel's
// next vector. On tiles `aside` is called product_steps times.
template <bool Accumulate, bool Transposed = false, class T>
void product(Left<T> a, int64_t rows, const T* panel, int64_t width, int64_t K, T* c, int64_t ldc,
             const Aside& aside = Aside()) {
  if constexpr (kHasTiles<T>)
    if (on_tiles<T>(K)) return by_tiles::panel_product<Accumulate>(rows, a.split, panel, width, K, c, ldc, aside);
  by_vectors::panel_product<Accumulate, Transposed>(rows, a.data, a.row, panel, width, K, c, ldc);
}

inline int64_t product_steps(int64_t rows, int64_t K) {
  return by_tiles::kStepsPerBlock * ceil_div(rows, 2 * by_tiles::kSide) * ceil_div(K, by_tiles::kTileDepth);
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
