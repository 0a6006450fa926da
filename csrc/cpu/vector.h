// Vectors of one instruction-set level, as GCC vector extensions: 4, 8 or 16 floats, half as many doubles.
//
// Arithmetic, comparison and `mask ? a : b` are the language's own, and scalars broadcast. This header adds what the
// extension lacks: memory, bits, reductions. Each level lives in a namespace of its own, so that they never meet
// at link time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#ifndef NTKFAST_ISA
#define NTKFAST_ISA base
#endif
#ifndef NTKFAST_VECTOR_BYTES
#define NTKFAST_VECTOR_BYTES 16
#endif

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define NTKFAST_INLINE inline __attribute__((always_inline))
#define NTKFAST_INLINE_LAMBDA __attribute__((always_inline))

namespace ntkfast::NTKFAST_ISA {

// T's vector of `bytes` bytes.
template <class T, std::size_t bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};

template <class T>
using Vec = typename VectorOf<T, NTKFAST_VECTOR_BYTES>::type;

template <class T>
constexpr int kLanes = int(NTKFAST_VECTOR_BYTES / sizeof(T));

template <class V>
using Element = std::decay_t<decltype(std::declval<V&>()[0])>;

// The integers of V's lane width: Bits<V> for bit patterns, Mask<V> as comparisons give it (0 or −1).
template <class V>
using Bits =
    typename VectorOf<std::conditional_t<sizeof(Element<V>) == 4, std::uint32_t, std::uint64_t>, sizeof(V)>::type;
template <class V>
using Mask =
    typename VectorOf<std::conditional_t<sizeof(Element<V>) == 4, std::int32_t, std::int64_t>, sizeof(V)>::type;

template <class V>
constexpr int kLanesOf = int(sizeof(V) / sizeof(Element<V>));

// ---- bits

template <class V>
NTKFAST_INLINE Bits<V> bits(V v) {
  return (Bits<V>)v;
}

template <class V>
NTKFAST_INLINE V from_bits(Bits<V> b) {
  return (V)b;
}

template <class V>
constexpr auto kSignBit = Element<Bits<V>>(1) << (8 * sizeof(Element<V>) - 1);

template <class V>
NTKFAST_INLINE V abs(V v) {
  return from_bits<V>(bits(v) & ~kSignBit<V>);
}

// v, which must not be negative, with the sign of s.
template <class V>
NTKFAST_INLINE V with_sign(V v, V s) {
  return from_bits<V>(bits(v) | (bits(s) & kSignBit<V>));
}

template <class V>
NTKFAST_INLINE V broadcast(Element<V> x) {
  return x - V{};  // −0 stays −0
}

// a·b + c, rounded once wherever the level has the instruction. (The compiler's own contraction of a*b + c depends on
// the code around it: fine where a rounding more or less does not matter, not in the elementary functions.)
template <class V>
NTKFAST_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(Element<V>) == 4) return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  if constexpr (sizeof(V) == 64 && sizeof(Element<V>) == 8) {
    return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
  }
#endif
#if defined(__FMA__)
  if constexpr (sizeof(V) == 32 && sizeof(Element<V>) == 4) return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  if constexpr (sizeof(V) == 32 && sizeof(Element<V>) == 8) {
    return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
  }
#endif
  return a * b + c;
}
template <class V>
NTKFAST_INLINE V fma(V a, Element<V> b, V c) {
  return fma(a, broadcast<V>(b), c);
}
template <class V>
NTKFAST_INLINE V fma(V a, V b, Element<V> c) {
  return fma(a, b, broadcast<V>(c));
}
template <class V>
NTKFAST_INLINE V fma(V a, Element<V> b, Element<V> c) {
  return fma(a, broadcast<V>(b), broadcast<V>(c));
}

// 0, 1, 2, … as integers of V's lane width.
template <class V>
NTKFAST_INLINE Mask<V> iota() {
  Mask<V> v{};
  for (int i = 0; i < kLanesOf<V>; ++i) v[i] = i;
  return v;
}

// ---- memory, at any alignment

template <class T>
NTKFAST_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
NTKFAST_INLINE void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first n ≤ lanes elements, zeros behind them; reads nothing beyond them.
template <class T>
NTKFAST_INLINE Vec<T> load_partial(const T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
#elif defined(__AVX2__)
  const auto mask = (__m256i)(iota<Vec<T>>() < n);
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_maskload_ps(p, mask);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm256_maskload_pd(p, mask);
#else
  Vec<T> v{};
  for (int i = 0; i < kLanes<T>; ++i) v[i] = i < n ? p[i] : T(0);
  return v;
#endif
}

// The same for any n.
template <class T>
NTKFAST_INLINE Vec<T> load_up_to(const T* p, int64_t n) {
  if (n >= kLanes<T>) return load<T>(p);
  return n > 0 ? load_partial<T>(p, static_cast<int>(n)) : Vec<T>{};
}

// Writes the first n ≤ lanes elements and nothing beyond them.
template <class T>
NTKFAST_INLINE void store_partial(T* p, Vec<T> v, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
  if constexpr (sizeof(T) == 8) _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
#elif defined(__AVX2__)
  const auto mask = (__m256i)(iota<Vec<T>>() < n);
  if constexpr (sizeof(T) == 4) _mm256_maskstore_ps(p, mask, (__m256)v);
  if constexpr (sizeof(T) == 8) _mm256_maskstore_pd(p, mask, (__m256d)v);
#else
  for (int i = 0; i < kLanes<T>; ++i) {
    if (i < n) p[i] = v[i];
  }
#endif
}

// Asks for a cache line before it is wanted; it comes as far as L2.
constexpr int64_t kCacheLine = 64;
inline void prefetch(const char* line) { __builtin_prefetch(line, 0, 2); }

// The same for a line that will be written; it comes as far as L1.
inline void prefetch_to_write(const char* line) { __builtin_prefetch(line, 1, 3); }

// ---- reductions

// Σ of the lanes, halves added to halves: the order is fixed.
template <class V>
NTKFAST_INLINE Element<V> sum(V v) {
  if constexpr (kLanesOf<V> == 1) {
    return v[0];
  } else if constexpr (sizeof(V) > 16) {
    struct {
      typename VectorOf<Element<V>, sizeof(V) / 2>::type low, high;
    } half;
    __builtin_memcpy(&half, &v, sizeof v);
    return sum(half.low + half.high);
  } else if constexpr (kLanesOf<V> == 4) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else {
    return v[0] + v[1];
  }
}

// One step of several such sums at a time: a and b hold groups of `width` lanes each, and the result, groups of half
// the width, those of a before those of b.
template <int width, class V>
NTKFAST_INLINE V halved(V a, V b) {
  constexpr int lanes = kLanesOf<V>;
  Mask<V> low{}, high{};
  for (int i = 0; i < lanes; ++i) {
    low[i] = i / (width / 2) * width + i % (width / 2);
    high[i] = low[i] + width / 2;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

// The sums of n ≤ lanes vectors, side by side, in the order of sum(): v[0] in the first lane.
template <int n, int width, class V>
NTKFAST_INLINE V sums_of(const V* v) {
  if constexpr (width == 1) {
    return v[0];
  } else {
    V next[(n + 1) / 2];
#pragma GCC unroll 8
    for (int i = 0; i < (n + 1) / 2; ++i) next[i] = halved<width>(v[2 * i], v[2 * i + 1 < n ? 2 * i + 1 : 2 * i]);
    return sums_of<(n + 1) / 2, width / 2>(next);
  }
}

// The sums of n vectors to n places.
template <int n, class V>
NTKFAST_INLINE void store_sums(const V* v, Element<V>* to) {
  constexpr int lanes = kLanesOf<V>, now = n < lanes ? n : lanes;
  const V found = sums_of<now, lanes>(v);
  if constexpr (now == lanes) __builtin_memcpy(to, &found, sizeof found);
  else store_partial(to, found, now);
  if constexpr (n > lanes) store_sums<n - lanes>(v + lanes, to + lanes);
}

// ---- squares

// Lane i of row r becomes lane r of row i: of each two rows that are `distance` apart, halves change places.
template <int distance, class V>
NTKFAST_INLINE void exchange(V* row) {
  constexpr int lanes = kLanesOf<V>;
  Mask<V> upper{}, lower{};
  for (int i = 0; i < lanes; ++i) {
    upper[i] = i & distance ? lanes + i - distance : i;
    lower[i] = i & distance ? lanes + i : i + distance;
  }
#pragma GCC unroll 16
  for (int r = 0; r < lanes; ++r) {
    if (r & distance) continue;
    const V a = row[r], b = row[r + distance];
    row[r] = __builtin_shuffle(a, b, upper);
    row[r + distance] = __builtin_shuffle(a, b, lower);
  }
}

template <class V, int lanes, int distance = lanes / 2>
NTKFAST_INLINE void transpose(V (&row)[lanes]) {
  static_assert(lanes == kLanesOf<V>, "a square");
  exchange<distance>(row);
  if constexpr (distance > 1) transpose<V, lanes, distance / 2>(row);
}

// Whether a comparison holds in any lane.
template <class M>
NTKFAST_INLINE bool any(M mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(M) == 64) return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(M) == 32) return _mm256_movemask_epi8((__m256i)mask) != 0;
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(M) == 16) return _mm_movemask_epi8((__m128i)mask) != 0;
#endif
  bool found = false;
  for (int i = 0; i < kLanesOf<M>; ++i) found |= mask[i] != 0;
  return found;
}

}  // namespace ntkfast::NTKFAST_ISA
