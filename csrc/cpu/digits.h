// Rows of numbers as integers of one scale each, in digits of eight bits, laid out for the matrix tiles.
//
//   x_k = 2^e Σ_d q_dk 256^(S−1−d)      d = 0 … S−1,  −128 ≤ q_dk ≤ 127,  e: the row's exponent
//
// Rounded to the nearest such number: S = 3 digits hold the floats of a row to 2⁻²³ of its largest one, S = 7 doubles to
// 2⁻⁵⁵. An exponent is NaN where a number of the row is not finite; its digits then mean nothing.
//
// A block is 16 rows: their exponents, then tiles (k blocks, digits), each 64 values of k of one digit. A left tile has
// the k of a row side by side; a right one is its transpose, fours of k taken whole. Padded with zeros.
#pragma once

#include <cmath>
#include <limits>

#include "matrix_tiles.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
constexpr bool kHasDigits = NTKFAST_AMX;

template <class T>
constexpr int kDigits = sizeof(T) == 4 ? 3 : 7;

constexpr int64_t kDigitRows = 16, kDigitDepth = 64, kDigitTile = kDigitRows * kDigitDepth;  // a tile in bytes

// Products of digits take the time of so many multiply–adds of the same depth, or less: shallow ones lose by padding.
// ntkfast/tiles.py has it too.
template <class T>
constexpr double kDigitCost = sizeof(T) == 4 ? 0.5 : 0.8;

template <class T>
bool on_digits(int64_t K) {
  return kHasDigits<T> && kDigitCost<T> * double(ceil_div(K, kDigitDepth) * kDigitDepth) <= double(K);
}

// Of a block, in elements.
template <class T>
int64_t block_size(int64_t K) {
  return kDigitRows + ceil_div(K, kDigitDepth) * kDigits<T> * kDigitTile / int64_t(sizeof(T));
}

template <class T>
const std::int8_t* block_tiles(const T* block) {
  return reinterpret_cast<const std::int8_t*>(block + kDigitRows);
}

#if NTKFAST_AMX

// max |x_k|; NaN counts as larger than all.
template <class T>
T largest_of(const T* x, int64_t K) {
  Bits<Vec<T>> found{};
  for (int64_t k = 0; k < K; k += kLanes<T>) {
    const Bits<Vec<T>> size = bits(abs(load_up_to<T>(x + k, K - k)));
    found = size > found ? size : found;
  }
  auto most = found[0];
  for (int i = 1; i < kLanes<T>; ++i) most = found[i] > most ? found[i] : most;
  T value;
  __builtin_memcpy(&value, &most, sizeof value);
  return value;
}

// e for a row with this largest number: the first digit then needs 7 bits and a sign, after rounding too.
template <class T>
T digit_exponent(T largest) {
  if (!(largest <= std::numeric_limits<T>::max())) return std::numeric_limits<T>::quiet_NaN();
  int e = 0;
  if (std::frexp(largest, &e) > T(0.99)) ++e;
  return T(e - 8 * kDigits<T> + 1);
}

// v 2^e for whole e.
NTKFAST_INLINE Vec<float> scaled(Vec<float> v, Vec<float> e) {
  return (Vec<float>)_mm512_scalef_ps((__m512)v, (__m512)e);
}
NTKFAST_INLINE Vec<double> scaled(Vec<double> v, Vec<double> e) {
  return (Vec<double>)_mm512_scalef_pd((__m512d)v, (__m512d)e);
}

NTKFAST_INLINE Mask<Vec<float>> nearest(Vec<float> v) { return (Mask<Vec<float>>)_mm512_cvtps_epi32((__m512)v); }
NTKFAST_INLINE Mask<Vec<double>> nearest(Vec<double> v) { return (Mask<Vec<double>>)_mm512_cvtpd_epi64((__m512d)v); }

NTKFAST_INLINE void store_low_bytes(Mask<Vec<float>> q, std::int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)q));
}
NTKFAST_INLINE void store_low_bytes(Mask<Vec<double>> q, std::int8_t* to) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm512_cvtepi64_epi8((__m512i)q));
}

// The digits of the first `depth` numbers of a row, zeros up to K: 64 bytes each, a tile apart, k block after k block.
template <class T>
void write_digits(const T* x, int64_t depth, int64_t K, T exponent, std::int8_t* to) {
  constexpr int S = kDigits<T>;
  for (int64_t k0 = 0; k0 < K; k0 += kDigitDepth, to += S * kDigitTile)
    for (int64_t k = 0; k < kDigitDepth; k += kLanes<T>) {
      auto q = nearest(scaled(load_up_to<T>(x + k0 + k, depth - k0 - k), Vec<T>{} - exponent));
#pragma GCC unroll 7
      for (int d = S - 1; d >= 0; --d) {
        store_low_bytes(q, to + d * kDigitTile + k);
        q = (q + 128) >> 8;  // what is above the digit, which has a sign
      }
    }
}

// A block of up to 16 rows of a, for the left or the right of a product.
template <class T>
void split_digits(const T* a, int64_t lda, int64_t rows, int64_t K, bool right, T* block) {
  std::int8_t* tiles = reinterpret_cast<std::int8_t*>(block + kDigitRows);
  for (int64_t r = 0; r < kDigitRows; ++r) {
    const int64_t depth = r < rows ? K : 0;
    block[r] = digit_exponent(largest_of(a + r * lda, depth));
    write_digits(a + r * lda, depth, K, block[r], tiles + r * kDigitDepth);
  }
  const int64_t tiles_in_all = ceil_div(K, kDigitDepth) * kDigits<T>;
  for (int64_t t = 0; right && t < tiles_in_all; ++t) transpose(reinterpret_cast<float*>(tiles + t * kDigitTile));
}

#endif

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
