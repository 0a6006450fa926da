// Rows of numbers as integers of one scale each, in digits of eight bits, laid out for the matrix tiles.
//
//   x_k = 2^e Σ_d q_dk 256^((S−1)/2−d)      d = 0 … S−1,  −128 ≤ q_dk ≤ 127,  e: the row's exponent
//
// Rounded to the nearest such number: S = 3 digits hold the floats of a row to 2⁻²³ of its largest one or 1 % more,
// S = 7 doubles to 2⁻⁵⁵. An exponent is NaN where a number of the row is not finite; its digits then mean nothing.
//
// A block is 16 rows: their exponents, then tiles (k blocks, digits), each 64 values of k of one digit. A left tile has
// a row's digits side by side; a right one is its transpose, fours taken whole. Padded with zeros.
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

// Up to this depth the sums of products of digits stay below 2³¹. ntkfast/tiles.py has it too.
constexpr int64_t kMaxDigitDepth = 16384;
static_assert(kDigits<double> * kMaxDigitDepth * 128 * 128 < int64_t(1) << 31);

template <class T>
bool on_digits(int64_t K) {
  return kHasDigits<T> && K <= kMaxDigitDepth &&
         kDigitCost<T> * double(ceil_div(K, kDigitDepth) * kDigitDepth) <= double(K);
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

NTKFAST_INLINE std::uint32_t largest_lane(Bits<Vec<float>> v) { return _mm512_reduce_max_epu32((__m512i)v); }
NTKFAST_INLINE std::uint64_t largest_lane(Bits<Vec<double>> v) { return _mm512_reduce_max_epu64((__m512i)v); }

// max |x_k|; NaN counts as larger than all.
template <class T>
T largest_of(const T* x, int64_t K) {
  Bits<Vec<T>> found{};
  for (int64_t k = 0; k < K; k += kLanes<T>) {
    const Bits<Vec<T>> size = bits(abs(load_up_to<T>(x + k, K - k)));
    found = size > found ? size : found;
  }
  const auto most = largest_lane(found);
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
  return T(e - 7 - 4 * (kDigits<T> - 1));
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

// Digits have a sign and cannot be cut out of a number q as they are; those of q + Σ 128·256^d are larger by 128 each,
// and this takes it off again.
NTKFAST_INLINE __m512i digits_as_bytes(Mask<Vec<float>> q) {
  const __m512i offset = _mm512_set1_epi32(0x808080);
  return _mm512_xor_si512(_mm512_add_epi32((__m512i)q, offset), offset);
}
NTKFAST_INLINE __m512i digits_as_bytes(Mask<Vec<double>> q) {
  const __m512i offset = _mm512_set1_epi64(0x80808080808080);
  return _mm512_xor_si512(_mm512_add_epi64((__m512i)q, offset), offset);
}

// The digits of 64 numbers, tiles apart. Bytes only change places inside their quarters of a register: in a tile, the k
// stand in an order of their own, the same for all rows.
NTKFAST_INLINE void store_digits(const Mask<Vec<float>>* q, std::int8_t* to) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15));
  __m512i v[4];
  for (int i = 0; i < 4; ++i) v[i] = _mm512_shuffle_epi8(digits_as_bytes(q[i]), order);
  const __m512i low = _mm512_unpacklo_epi32(v[0], v[1]), next = _mm512_unpacklo_epi32(v[2], v[3]);
  const __m512i high = _mm512_unpackhi_epi32(v[0], v[1]), last = _mm512_unpackhi_epi32(v[2], v[3]);
  _mm512_storeu_si512(to, _mm512_unpacklo_epi64(low, next));
  _mm512_storeu_si512(to + kDigitTile, _mm512_unpackhi_epi64(low, next));
  _mm512_storeu_si512(to + 2 * kDigitTile, _mm512_unpacklo_epi64(high, last));
}
NTKFAST_INLINE void store_digits(const Mask<Vec<double>>* q, std::int8_t* to) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(6, 14, 5, 13, 4, 12, 3, 11, 2, 10, 1, 9, 0, 8, 7, 15));
  __m512i v[8], pairs[8], fours[8];
  for (int i = 0; i < 8; ++i) v[i] = _mm512_shuffle_epi8(digits_as_bytes(q[i]), order);
  for (int i = 0; i < 4; ++i) {  // digits 0 … 3, then 4 … 6
    pairs[i] = _mm512_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    pairs[i + 4] = _mm512_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {  // of numbers 0 … 3 and 4 … 7: two digits each
    fours[2 * i] = _mm512_unpacklo_epi32(pairs[2 * i], pairs[2 * i + 1]);
    fours[2 * i + 1] = _mm512_unpackhi_epi32(pairs[2 * i], pairs[2 * i + 1]);
  }
  for (int half = 0; half < 2; ++half)
    for (int two = 0; two < 2; ++two) {
      const int d = 4 * half + 2 * two;
      const __m512i low = fours[4 * half + two], high = fours[4 * half + 2 + two];
      _mm512_storeu_si512(to + d * kDigitTile, _mm512_unpacklo_epi64(low, high));
      if (d < 6) _mm512_storeu_si512(to + (d + 1) * kDigitTile, _mm512_unpackhi_epi64(low, high));
    }
}

// The digits of the first `depth` numbers of a row, zeros up to K: 64 bytes each, a tile apart, k block after k block.
template <class T>
void write_digits(const T* x, int64_t depth, int64_t K, T exponent, std::int8_t* to) {
  constexpr int S = kDigits<T>, kVectors = int(kDigitDepth) / kLanes<T>;
  const Vec<T> shift = Vec<T>{} + (T(4 * (S - 1)) - exponent);
  for (int64_t k0 = 0; k0 < K; k0 += kDigitDepth, to += S * kDigitTile) {
    Mask<Vec<T>> q[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      const int64_t k = k0 + i * kLanes<T>;
      q[i] = nearest(scaled(load_up_to<T>(x + k, depth - k), shift));
    }
    store_digits(q, to);
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
  for (int64_t t = 0; right && t < tiles_in_all; ++t) transpose_tile(reinterpret_cast<float*>(tiles + t * kDigitTile));
}

#endif

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
