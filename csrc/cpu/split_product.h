// The product of two split operands: six of the nine products of their parts, on the matrix tiles.
//
//   x y = hh' + (hm' + mh') + mm' + (hl' + lh')        left out: |ml' + lm' + ll'| ≤ 2⁻²² |x y|, and zero on average
//
// The hardware adds 32 products to each other before it adds them to a sum, so that the sums are rounded less often
// than those of a chain of multiply-adds. It takes subnormal numbers for zeros: products below 1e-31 lose digits, and
// those below 1e-38 are lost. It makes NaN of infinities (∞ − ∞ in a remainder): what is not finite is computed anew by
// vectors.
#pragma once

#include "split_operand.h"

#if NTKFAST_AMX

namespace ntkfast {
namespace NTKFAST_ISA {
namespace by_tiles {

// The tile loads do not set off the hardware's own prefetching. May lie beyond the operand.
NTKFAST_INLINE void prefetch_tile(const float* tile) {
#pragma GCC unroll 16
  for (int row = 0; row < 16; ++row) __builtin_prefetch(tile + 16 * row);
}

// Which products are summed, in this order. Each differs from the one before it in one operand, but for the first.
enum Part : int { h, m, l };
struct Term {
  Part left, right;
};
constexpr Term kTerms[] = {{l, h}, {m, h}, {m, m}, {h, m}, {h, l}, {h, h}};
constexpr int64_t kStepsPerBlock = 2;  // calls of aside in a block of k: after every third term

// Blocks × halves tiles of sums, tmm(2·block + half); left operands pass through tmm4 and tmm5, right ones through tmm6
// and tmm7. `next` is the distance of the left operand's row blocks.
template <int Blocks, int Halves>
void block_product(const float* left, int64_t next, const float* panel, int64_t K, float* c, int64_t ldc,
                   const Aside& aside) {
  const auto load_left = [&](int part) {
    load_tile<4>(left + part * kTileFloats, 64);
    prefetch_tile(left + kBlockFloats + part * kTileFloats);
    if constexpr (Blocks == 2) {
      load_tile<5>(left + next + part * kTileFloats, 64);
      prefetch_tile(left + next + kBlockFloats + part * kTileFloats);
    }
  };
  const auto load_right = [&](int part) {
    load_tile<6>(panel + 2 * part * kTileFloats, 64);
    prefetch_tile(panel + kPanelFloats + 2 * part * kTileFloats);
    if constexpr (Halves == 2) {
      load_tile<7>(panel + (2 * part + 1) * kTileFloats, 64);
      prefetch_tile(panel + kPanelFloats + (2 * part + 1) * kTileFloats);
    }
  };
  constexpr int count = sizeof kTerms / sizeof(Term);
  clear_tile<0>(), clear_tile<1>(), clear_tile<2>(), clear_tile<3>();
  for (int64_t k = 0; k < K; k += kTileDepth, left += kBlockFloats, panel += kPanelFloats)
#pragma GCC unroll 6
    for (int t = 0; t < count; ++t) {
      if (t == 0 || kTerms[t].left != kTerms[t - 1].left) load_left(kTerms[t].left);
      if (t == 0 || kTerms[t].right != kTerms[t - 1].right) load_right(kTerms[t].right);
      dot_tiles<0, 4, 6>();
      if constexpr (Halves == 2) dot_tiles<1, 4, 7>();
      if constexpr (Blocks == 2) dot_tiles<2, 5, 6>();
      if constexpr (Blocks == 2 && Halves == 2) dot_tiles<3, 5, 7>();
      if (t % 3 == 2) aside();
    }
  store_tile<0>(c, 4 * ldc);
  if constexpr (Halves == 2) store_tile<1>(c + kSide, 4 * ldc);
  if constexpr (Blocks == 2) store_tile<2>(c + kSide * ldc, 4 * ldc);
  if constexpr (Blocks == 2 && Halves == 2) store_tile<3>(c + kSide * ldc + kSide, 4 * ldc);
}

inline bool finite(const float* c, int64_t ldc, int64_t rows, int64_t vectors) {
  Floats zero[2] = {};  // 0·x is NaN where x is not finite
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v) zero[v] += load<float>(c + r * ldc + 16 * v) * 0.0f;
  return !any(zero[0] != zero[0]) && !any(zero[1] != zero[1]);
}

// The floats whose parts are the low or the high words of three tiles' rows. Remainders of what is not finite are NaN
// and mean nothing.
NTKFAST_INLINE Floats joined(const float* row, int64_t apart, bool high) {
  const auto part = [&](int p) {
    const auto words = bits(load<float>(row + p * apart));
    return from_bits<Floats>(high ? words & 0xffff0000u : words << 16);
  };
  const Floats found = part(0);
  return found - found == Floats{} ? found + (part(1) + part(2)) : found;
}

// The entries of a block that are not finite, anew: by vectors, k after k.
inline void careful_block_product(const float* left, int64_t next, const float* panel, int64_t K, int64_t blocks,
                                  int64_t vectors, float* c, int64_t ldc) {
  Floats sum[2 * kSide][2] = {};
  for (int64_t k0 = 0; k0 < K; k0 += kTileDepth, left += kBlockFloats, panel += kPanelFloats) {
    const int64_t depth = K - k0 < kTileDepth ? K - k0 : kTileDepth;
    Floats right[kTileDepth][2];
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t v = 0; v < vectors; ++v)
        right[k][v] = joined(panel + k / 2 * 16 + v * kTileFloats, 2 * kTileFloats, k % 2 == 1);
    for (int64_t r = 0; r < blocks * kSide; ++r) {
      const float* row = left + r / kSide * next + r % kSide * 16;
      const Floats x[2] = {joined(row, kTileFloats, false), joined(row, kTileFloats, true)};
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t k = 0; k < depth; ++k) sum[r][v] += x[k % 2][k / 2] * right[k][v];
    }
  }
  for (int64_t r = 0; r < blocks * kSide; ++r)
    for (int64_t v = 0; v < vectors; ++v) {
      const Floats found = load<float>(c + r * ldc + 16 * v);
      store<float>(c + r * ldc + 16 * v, found - found == Floats{} ? found : sum[r][v]);
    }
}

// Up to two row blocks against the first `width` columns of a panel.
inline void any_block_product(int64_t blocks, const float* left, int64_t next, const float* panel, int64_t width,
                              int64_t K, float* c, int64_t ldc, const Aside& aside) {
  const bool wide = width > kSide;
  if (blocks == 2 && wide) block_product<2, 2>(left, next, panel, K, c, ldc, aside);
  else if (blocks == 2) block_product<2, 1>(left, next, panel, K, c, ldc, aside);
  else if (wide) block_product<1, 2>(left, next, panel, K, c, ldc, aside);
  else block_product<1, 1>(left, next, panel, K, c, ldc, aside);
}

// C (+)= the first `rows` rows of a split left operand · the first `width` columns of a panel. Nothing is written below
// the last row, nor beyond the panel's next vector.
template <bool Accumulate>
void panel_product(int64_t rows, const float* left, const float* panel, int64_t width, int64_t K, float* c, int64_t ldc,
                   const Aside& aside) {
  const int64_t next = depth_blocks(K) * kBlockFloats, vectors = width > kSide ? 2 : 1;
  constexpr int64_t kMost = 8 * kSide;
  alignas(64) float sums[kMost * 2 * kSide];
  for (int64_t first = 0; first < rows; first += kMost) {
    const int64_t count = rows - first < kMost ? rows - first : kMost, blocks = (count + kSide - 1) / kSide;
    const float* from = left + first / kSide * next;
    const bool direct = !Accumulate && count % kSide == 0;
    float* to = direct ? c + first * ldc : sums;
    const int64_t row = direct ? ldc : 2 * kSide;
    for (int64_t b = 0; b < blocks; b += 2)
      any_block_product(blocks - b < 2 ? 1 : 2, from + b * next, next, panel, width, K, to + b * kSide * row, row,
                        aside);
    if (!finite(to, row, count, vectors)) {
      for (int64_t b = 0; b < blocks; b += 2)
        careful_block_product(from + b * next, next, panel, K, blocks - b < 2 ? 1 : 2, vectors, to + b * kSide * row,
                              row);
    }
    if (direct) continue;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t v = 0; v < vectors; ++v) {
        float* at = c + (first + i) * ldc + 16 * v;
        const Floats sum = load<float>(sums + 2 * kSide * i + 16 * v);
        store<float>(at, Accumulate ? load<float>(at) + sum : sum);
      }
  }
}

}  // namespace by_tiles
}  // namespace NTKFAST_ISA
}  // namespace ntkfast

#endif
