// Floats as sums of three bfloat16, laid out for the matrix tiles.
//
//   x = h + m + l      h = cut(x)      m = round(x − h)      l = x − h − m      exactly, 8 significant bits each
//
// h is cut, not rounded, so that the largest floats stay finite. Exactly: but for numbers below 1e-33, whose l is
// beneath what a bfloat16 can hold here.
//
// A tile covers 32 values of k. Its rows are 16 rows of a left operand, each with its k side by side; or 16 pairs of k
// of a right operand, each with the pair of every one of 16 columns. The one is the other's transpose, pairs taken
// whole.
// A block is the tiles h, m, l. Left operands stand as (row blocks, k blocks), right panels as (k blocks, 2 halves of a
// panel), but there the three parts come first: h, h, m, m, l, l. Everything is padded with zeros, but rows of a left
// operand beyond its last, which may hold anything: rows do not meet.
#pragma once

#include "matrix_tiles.h"

#if NTKFAST_AMX

namespace ntkfast {
namespace NTKFAST_ISA {
namespace by_tiles {

constexpr int64_t kSide = 16;                       // rows of a left tile, columns of a right one
constexpr int64_t kTileDepth = 32;                  // its values of k
constexpr int64_t kTileFloats = 256;                // its size
constexpr int64_t kBlockFloats = 3 * kTileFloats;   // h, m and l
constexpr int64_t kPanelFloats = 2 * kBlockFloats;  // of one k block of a right panel

inline int64_t depth_blocks(int64_t K) { return (K + kTileDepth - 1) / kTileDepth; }

using Floats = Vec<float>;

NTKFAST_INLINE Floats cut(Floats x) { return from_bits<Floats>(bits(x) & 0xffff0000u); }

// To the nearest bfloat16, ties away from zero.
NTKFAST_INLINE Floats rounded(Floats x) { return from_bits<Floats>((bits(x) + 0x8000u) & 0xffff0000u); }

struct Parts {
  Floats of[3];
};

NTKFAST_INLINE Parts split(Floats x) {
  const Floats h = cut(x), rest = x - h, m = rounded(rest);
  return {{h, m, rest - m}};
}

// 32 bfloat16 in order, from floats that hold no more.
NTKFAST_INLINE void store_row(float* to, Floats low, Floats high) {
  const __m512bh row = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  __builtin_memcpy(to, &row, sizeof row);
}

// Pairs (low, high) of every column.
NTKFAST_INLINE void store_pairs(float* to, Floats low, Floats high) {
  store<float>(to, from_bits<Floats>((bits(low) >> 16) | (bits(high) & 0xffff0000u)));
}

// Tiles of s·a whose k runs along the rows of a: `rows` rows and `depth` columns of it, at most 16 × 32. The parts
// stand `apart` floats from each other.
template <int Rows = kSide>
void fill_along(const float* a, int64_t lda, int64_t rows, int64_t depth, float scale, int64_t apart, float* to) {
  for (int64_t r = 0; r < Rows; ++r) {
    const bool inside = r < rows;
    const Parts low = split((inside ? load_up_to(a + r * lda, depth) : Floats{}) * scale);
    const Parts high = split((inside ? load_up_to(a + r * lda + 16, depth - 16) : Floats{}) * scale);
#pragma GCC unroll 3
    for (int part = 0; part < 3; ++part) store_row(to + part * apart + 16 * r, low.of[part], high.of[part]);
  }
}

// Tiles whose k runs across rows: row(k) starts the k-th of `depth` rows of `columns` columns, at most 32 × 16.
template <class Row, class Factor>
void fill_across(const Row& row, int64_t columns, int64_t depth, const Factor& factor, int64_t apart, float* to) {
  for (int64_t k = 0; k < kTileDepth; k += 2) {
    const Parts low = split(k < depth ? load_up_to<float>(row(k), columns) * factor(k) : Floats{});
    const Parts high = split(k + 1 < depth ? load_up_to<float>(row(k + 1), columns) * factor(k + 1) : Floats{});
#pragma GCC unroll 3
    for (int part = 0; part < 3; ++part) store_pairs(to + part * apart + 8 * k, low.of[part], high.of[part]);
  }
}

// ---- left operands

inline int64_t left_size(int64_t rows, int64_t K) {
  return (rows + kSide - 1) / kSide * depth_blocks(K) * kBlockFloats;
}

// One block of up to 16 rows of a.
inline void split_rows(const float* a, int64_t lda, int64_t rows, int64_t K, float* to) {
  for (int64_t k = 0; k < K; k += kTileDepth, to += kBlockFloats)
    fill_along(a + k, lda, rows, K - k, 1.0f, kTileFloats, to);
}

constexpr int64_t kSomeRows = 4;

// So many rows of a whole operand, and of these one block of k.
inline void split_some(const float* a, int64_t lda, int64_t rows, int64_t K, int64_t first, int64_t depth_block,
                       float* to) {
  const int64_t k = depth_block * kTileDepth;
  fill_along<kSomeRows>(a + first * lda + k, lda, rows - first, K - k, 1.0f, kTileFloats,
                        to + left_size(first / kSide * kSide, K) + depth_block * kBlockFloats + first % kSide * 16);
}

// One block of up to 16 columns of a: the operand is aᵀ.
inline void split_columns(const float* a, int64_t lda, int64_t columns, int64_t K, float* to) {
  for (int64_t k = 0; k < K; k += kTileDepth, to += kBlockFloats) {
    fill_across([&](int64_t i) { return a + (k + i) * lda; }, columns, K - k, [](int64_t) { return 1.0f; }, kTileFloats,
                to);
    for (int part = 0; part < 3; ++part) transpose_tile(to + part * kTileFloats);
  }
}

// ---- right panels of 32 columns

inline int64_t panel_size(int64_t K) { return depth_blocks(K) * kPanelFloats; }

// panel[k][j] = factor(k) row(k)[j] for j < width: one block of k of one half of the panel.
template <class Row, class Factor>
void pack_columns(const Row& row, int64_t width, int64_t K, const Factor& factor, float* panel, int64_t piece) {
  const int64_t half = piece % 2, k = piece / 2 * kTileDepth;
  fill_across([&](int64_t i) { return row(k + i) + half * kSide; }, width - half * kSide, K - k,
              [&](int64_t i) { return factor(k + i); }, 2 * kTileFloats,
              panel + piece / 2 * kPanelFloats + half * kTileFloats);
}

// panel[k][j] = scale W[j, k] for j < width.
inline void pack_rows(const float* W, int64_t ldw, int64_t width, int64_t K, float scale, float* panel) {
  for (int64_t k = 0; k < K; k += kTileDepth, panel += kPanelFloats)
    for (int64_t half = 0; half < 2; ++half) {
      float* to = panel + half * kTileFloats;
      fill_along(W + half * kSide * ldw + k, ldw, width - half * kSide, K - k, scale, 2 * kTileFloats, to);
      for (int part = 0; part < 3; ++part) transpose_tile(to + 2 * part * kTileFloats);
    }
}

}  // namespace by_tiles
}  // namespace NTKFAST_ISA
}  // namespace ntkfast

#endif
