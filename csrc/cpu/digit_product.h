// The product of rows in digits, on the matrix tiles.
//
//   Σ_k x_k x'_k = 2^(e+e') Σ_s 256^(2S−2−s) Σ_{d+d'=s} Σ_k q_dk q'_d'k
//
// The sums over k are whole numbers, and exact. Those with s ≥ S are left out, and the others leave 256^(S−1−s), for which
// the exponents make up. What is left out has random signs: together with the rounding of the operands a few times
// 2⁻²³ ‖x‖ ‖x'‖ for floats, 2⁻⁵³ for doubles; some twenty times that where one number of a row dwarfs all others; and, at
// worst, where all others are one and the same number too, depth · 2⁻²³ or 2⁻⁵³ of the largest product. All of it is
// relative to the norms: a sum that is small only because large numbers met zeros may be lost, where a chain of
// multiply-adds would have it.
//
// x and x' may change places, and rows may be cut as one likes, without changing a bit. Deep products are cut into pieces
// of k, since a block of rows is read S times over and had better stay near; their sums are added in order.
#pragma once

#include "digits.h"

#if NTKFAST_AMX

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int64_t kUnitRows = 2 * kDigitRows, kUnitColumns = kDigitRows;  // of one product
constexpr int64_t kUnit = kUnitRows * kUnitColumns;

// Depth of a piece: as many numbers again as L1 holds in digits of 32 rows and 16 columns. A sum stays below 2³¹ by far.
template <class T>
constexpr int64_t kPieceDepth = sizeof(T) == 4 ? 512 : 256;

// Two left blocks (or one), one right block, and a piece of their depth.
struct DigitOperands {
  const std::int8_t *left, *next, *right;  // tiles
  int64_t k_blocks;
};

// The sums s = High and, if Low is not High, s = Low = High − 1, of Blocks blocks of rows: tmm0 and tmm1 hold those of
// Low, tmm2 and tmm3 those of High. Left digits pass through tmm4 and tmm5. A right digit is used twice if there are two
// sums, in turns of tmm6 and tmm7.
template <class T, int Low, int High, int Blocks>
struct Diagonals {
  static constexpr int S = kDigits<T>;

  template <int d>
  NTKFAST_INLINE static void add_from(const std::int8_t* left, const std::int8_t* next, const std::int8_t* right,
                                      const Aside& aside) {
    constexpr int high = High - d, low = Low - d;
    if constexpr (Low == High || d == 0) load_tile<6 + high % 2>(right + high * kDigitTile, 64);
    load_tile<4>(left + d * kDigitTile, 64);
    if constexpr (Blocks == 2) load_tile<5>(next + d * kDigitTile, 64);
    dot_bytes<2, 4, 6 + high % 2>();
    if constexpr (Blocks == 2) dot_bytes<3, 5, 6 + high % 2>();
    if constexpr (Low < High && low >= 0) {
      load_tile<6 + low % 2>(right + low * kDigitTile, 64);
      dot_bytes<0, 4, 6 + low % 2>();
      if constexpr (Blocks == 2) dot_bytes<1, 5, 6 + low % 2>();
    }
    aside();
    if constexpr (d < High) add_from<d + 1>(left, next, right, aside);
  }

  static void sum(const DigitOperands& p, std::int32_t* sums, const Aside& aside) {
    clear_tile<2>(), clear_tile<3>();
    if constexpr (Low < High) clear_tile<0>(), clear_tile<1>();
    for (int64_t k = 0; k < p.k_blocks; ++k) {
      const int64_t at = k * S * kDigitTile;
      add_from<0>(p.left + at, p.next + at, p.right + at, aside);
    }
    const auto store = [&](auto tile, int s, int64_t block) {
      store_tile<tile>(sums + s * kUnit + block * kUnit / 2, 4 * kUnitColumns);
    };
    store(std::integral_constant<int, 2>{}, High, 0);
    if constexpr (Blocks == 2) store(std::integral_constant<int, 3>{}, High, 1);
    if constexpr (Low == High) return;
    store(std::integral_constant<int, 0>{}, Low, 0);
    if constexpr (Blocks == 2) store(std::integral_constant<int, 1>{}, Low, 1);
  }
};

// sums (S, 32, 16) of a piece. The aside is called digit_steps times.
template <class T, int Blocks>
void digit_sums(const DigitOperands& p, std::int32_t* sums, const Aside& aside) {
  if constexpr (kDigits<T> == 7) {
    Diagonals<T, 5, 6, Blocks>::sum(p, sums, aside);
    Diagonals<T, 3, 4, Blocks>::sum(p, sums, aside);
  }
  Diagonals<T, 1, 2, Blocks>::sum(p, sums, aside);
  Diagonals<T, 0, 0, Blocks>::sum(p, sums, aside);
}

template <class T>
constexpr int64_t digit_steps(int64_t k_blocks) {
  return k_blocks * (kDigits<T> == 7 ? 16 : 4);
}

NTKFAST_INLINE Vec<float> whole_numbers(const std::int32_t* p, float) {
  return (Vec<float>)_mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
NTKFAST_INLINE Vec<double> whole_numbers(const std::int32_t* p, double) {
  return (Vec<double>)_mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// A vector of products from their sums and exponents e + e'.
template <class T>
NTKFAST_INLINE Vec<T> product_of(const std::int32_t* sums, Vec<T> exponents) {
  Vec<T> v = whole_numbers(sums, T(0));
#pragma GCC unroll 6
  for (int s = 1; s < kDigits<T>; ++s) v = fma<Vec<T>>(v, T(256), whole_numbers(sums + s * kUnit, T(0)));
  return scaled(v, exponents + T(8 * (kDigits<T> - 1)));
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast

#endif
