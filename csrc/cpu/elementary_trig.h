// sin and cos on vectors: |x| = k π/2 + r with |r| ≤ π/4, the sine or the cosine of r, a sign from k mod 4.
//
// π/2 is subtracted in parts (Cody and Waite) that keep r's relative error near one rounding, however close x is to a
// multiple of π/2, up to |x| = 10⁵ in float32 and 10⁸ in float64. Lanes beyond go one by one through the C library.
#pragma once

#include <cmath>

#include "elementary_exp.h"
#include "vector.h"

namespace ntkfast::NTKFAST_ISA::elementary {

#if defined(__FMA__)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

template <class V>
constexpr Element<V> kTrigLimit = kSingle<V> ? Element<V>(1e5) : Element<V>(1e8);

template <class V>
struct Reduced {
  V r;
  Bits<V> k;  // right mod 4; the bits above are not
};

// a − k π/2 without a fused multiply–add, so every k·part but the last is exact: float32 has 8 bits left for a part.
template <class V>
NTKFAST_INLINE V minus_half_pi_split(V a, V k) {
  if constexpr (kSingle<V>) {
    const V r2 = (a - k * 0x1.92p+0f) - k * 0x1.fap-12f;              // exact
    const V t3 = k * 0x1.54p-20f, r3 = r2 - t3, e3 = (r2 - r3) - t3;  // e: what rounding dropped from r
    const V t4 = k * 0x1.1p-30f, r4 = r3 - t4, e4 = (r3 - r4) - t4;
    const V t5 = k * 0x1.68p-39f, r5 = r4 - t5, e5 = (r4 - r5) - t5;
    return r5 + ((e3 + e4 + e5) - k * 0x1.84698ap-48f);
  } else {
    return (((a - k * 0x1.921fb54p+0) - k * 0x1.10b461p-30) - k * 0x1.a62633p-58) - k * 0x1.45c06e0e68948p-86;
  }
}

// a − k π/2 with fused multiply–adds: the first is exact, and each later part only matters where r is small.
template <class V>
NTKFAST_INLINE V minus_half_pi_fused(V a, V k) {
  if constexpr (kSingle<V>) {
    return fma(k, 0x1.ee59dap-50f, fma(k, 0x1.777a5cp-25f, fma(k, -0x1.921fb6p+0f, a)));
  } else {
    return fma(k, 0x1.f1976b7ed8fbcp-110, fma(k, -0x1.1a62633145c07p-54, fma(k, -0x1.921fb54442d18p+0, a)));
  }
}

template <class V>
NTKFAST_INLINE Reduced<V> reduce_half_pi(V a) {
  const V shifted = fma(a, Element<V>(0.63661977236758134308), kRounder<V>);
  const V k = shifted - kRounder<V>;
  if constexpr (kHasFma) {
    return {minus_half_pi_fused(a, k), bits(shifted)};
  } else {
    return {minus_half_pi_split(a, k), bits(shifted)};
  }
}

// sin r on |r| ≤ π/4: r + r³ p(r²), minimax relative to r; error 2^−28 (float32), 2^−58 (float64).
template <class V>
NTKFAST_INLINE V sin_core(V r) {
  const V z = r * r;
  if constexpr (kSingle<V>) {
    return fma(r * z, polynomial(z, -1.666665524e-01f, 8.332190104e-03f, -1.951842132e-04f), r);
  } else {
    return fma(r * z,
               polynomial(z, -1.66666666666666324e-01, 8.33333333332245477e-03, -1.98412698298135268e-04,
                          2.75573136876923171e-06, -2.50507567444290426e-08, 1.58966841036731808e-10),
               r);
  }
}

// cos r on |r| ≤ π/4: 1 + r² p(r²), minimax; error 2^−33 (float32), 2^−64 (float64).
template <class V>
NTKFAST_INLINE V cos_core(V r) {
  const V z = r * r;
  if constexpr (kSingle<V>) {
    return fma(z, polynomial(z, -0.5f, 4.166664556e-02f, -1.388730132e-03f, 2.443070116e-05f), 1.0f);
  } else {
    return fma(z,
               polynomial(z, -0.5, 4.16666666666666019e-02, -1.38888888888744457e-03, 2.48015872896405083e-05,
                          -2.75573143889204856e-07, 2.08757272742461206e-09, -1.13598141261493208e-11),
               1.0);
  }
}

// Replaces the lanes of result beyond the limit by f(x), or NaN where x is infinite. Lanes within it keep their bits.
template <class V>
__attribute__((noinline, cold)) void beyond_limit(const V& x, V& result, double (*f)(double)) {
  for (int i = 0; i < kLanesOf<V>; ++i) {
    if (x[i] > kTrigLimit<V> || x[i] < -kTrigLimit<V>) result[i] = Element<V>(f(double(x[i])));
  }
}

// sin x; −0 stays −0.
template <class V>
NTKFAST_INLINE V sin(V x) {
  constexpr int top = 8 * sizeof(Element<V>) - 2;
  const V a = abs(x);
  const Reduced<V> t = reduce_half_pi(a);
  const V value = (t.k & 1) != 0 ? cos_core(t.r) : sin_core(t.r);
  V result = from_bits<V>(bits(value) ^ ((t.k & 2) << top) ^ (bits(x) & kSignBit<V>));
  if (__builtin_expect(any(a > kTrigLimit<V>), 0)) beyond_limit(x, result, ::sin);
  return result;
}

// cos x.
template <class V>
NTKFAST_INLINE V cos(V x) {
  constexpr int top = 8 * sizeof(Element<V>) - 2;
  const V a = abs(x);
  const Reduced<V> t = reduce_half_pi(a);
  const V value = (t.k & 1) != 0 ? sin_core(t.r) : cos_core(t.r);
  V result = from_bits<V>(bits(value) ^ (((t.k + 1) & 2) << top));
  if (__builtin_expect(any(a > kTrigLimit<V>), 0)) beyond_limit(x, result, ::cos);
  return result;
}

}  // namespace ntkfast::NTKFAST_ISA::elementary
