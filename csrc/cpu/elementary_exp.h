// exp, tanh and log1p on vectors.
//
// exp writes x = k ln 2 + r with |r| ≤ ln 2 / 2, and tanh does the like. Adding 1.5·2^(mantissa bits) rounds to an
// integer and leaves k in the low bits; with the exponent's bias added too, a shift turns these bits into 2ᵏ. So no
// level needs a rounding instruction.
#pragma once

#include "vector.h"

namespace ntkfast::NTKFAST_ISA::elementary {

// c₀ + c₁x + c₂x² + …
template <class V>
NTKFAST_INLINE V polynomial(V, Element<V> c0) {
  return broadcast<V>(c0);
}
template <class V, class... Rest>
NTKFAST_INLINE V polynomial(V x, Element<V> c0, Rest... rest) {
  return fma(polynomial(x, Element<V>(rest)...), x, c0);
}

template <class V>
constexpr bool kSingle = sizeof(Element<V>) == 4;
template <class V>
constexpr int kMantissaBits = kSingle<V> ? 23 : 52;
template <class V>
constexpr int kExponentBias = kSingle<V> ? 127 : 1023;
template <class V>
constexpr Element<V> kRounder = kSingle<V> ? Element<V>(12582912.0) : Element<V>(6755399441055744.0);

// The smaller of v and a bound; a NaN passes: min gives its second operand where one is a NaN.
template <class V>
NTKFAST_INLINE V at_most(V v, Element<V> bound) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && kSingle<V>) return (V)_mm512_min_ps(_mm512_set1_ps(bound), (__m512)v);
  if constexpr (sizeof(V) == 64 && !kSingle<V>) return (V)_mm512_min_pd(_mm512_set1_pd(bound), (__m512d)v);
#endif
  return v > bound ? broadcast<V>(bound) : v;
}

// (eʳ − 1 − r)/r² on |r| ≤ ln 2 / 2: minimax of r²q; the error in eʳ is 2^−28 (float32), 2^−58 (float64).
template <class V>
NTKFAST_INLINE V exp_tail(V r) {
  if constexpr (kSingle<V>) {
    return polynomial(r, 5.000000000e-01f, 1.666651964e-01f, 4.166641086e-02f, 8.368822746e-03f, 1.393993618e-03f);
  } else {
    return polynomial(r, 5.00000000000001332e-01, 1.66666666666666685e-01, 4.16666666665104213e-02,
                      8.33333333332917162e-03, 1.38888889483711523e-03, 1.98412698645406851e-04,
                      2.48014884898387876e-05, 2.75572682035162670e-06, 2.76318158470141313e-07,
                      2.50999600071931132e-08);
  }
}

// tanh r on |r| ≤ 3/8 ln 2: r + r³ p(r²), minimax relative to r; error 2^−28 (float32), 2^−57 (float64).
template <class V>
NTKFAST_INLINE V tanh_core(V r) {
  const V z = r * r;
  if constexpr (kSingle<V>) {
    return fma(r * z, polynomial(z, -3.333321512e-01f, 1.332267821e-01f, -5.122321472e-02f), r);
  } else {
    return fma(r * z,
               polynomial(z, -3.33333333333324211e-01, 1.33333333329878595e-01, -5.39682535256541945e-02,
                          2.18694616296721267e-02, -8.86235907719962711e-03, 3.57637332375656961e-03,
                          -1.30749242941579497e-03),
               r);
  }
}

// eˣ; overflows to inf, underflows through the subnormals to 0.
template <class V>
NTKFAST_INLINE V exp(V x) {
  using T = Element<V>;
  constexpr T highest = kSingle<V> ? T(89) : T(710), lowest = kSingle<V> ? T(-104) : T(-746);
  constexpr T rounder = kRounder<V> + T(2 * kExponentBias<V>);
  // The first part of ln 2 has so few bits that k times it is exact.
  constexpr T ln2_high = kSingle<V> ? T(0x1.62e4p-1) : T(0x1.62e42fefap-1);
  constexpr T ln2_low = kSingle<V> ? T(0x1.7f7d1cp-20) : T(0x1.cf79abc9e3b3ap-40);
  V y = at_most(x, highest);
  y = y < lowest ? broadcast<V>(lowest) : y;  // a NaN passes
  const V shifted = fma(y, T(1.44269504088896340736), rounder);
  const V k = shifted - rounder;
  const V r = fma(k, -ln2_low, fma(k, -ln2_high, y));
  const V p = fma(r * r, exp_tail(r), r);
  // 2ᵏ as the product of two powers, for k runs beyond the exponent's range at both ends.
  const Bits<V> n = bits(shifted), half = n >> 1;
  const V scale = from_bits<V>(half << kMantissaBits<V>);
  return fma(p, scale, scale) * from_bits<V>((n - half) << kMantissaBits<V>);
}

// tanh x from |x| = k ln 2 / 2 + r by the addition theorem: with c, d = (2ᵏ ± 1)/2 and t = tanh r it is
// (d + c t)/(c + d t), which for k = 0 is t itself. As n/(n + (1 − t)), an error of n hardly counts for large k.
// k is rounded with an offset of 1/4, so −1/8 ln 2 ≤ r ≤ 3/8 ln 2: with k = 1 at small |x| too much of n would cancel.
template <class V>
NTKFAST_INLINE V tanh(V x) {
  using T = Element<V>;
  constexpr T saturation = kSingle<V> ? T(9.5) : T(20);  // tanh rounds to 1 from here on
  constexpr T rounder = kRounder<V> + T(kExponentBias<V> - 1);
  const V y = at_most(abs(x), saturation);
  const V shifted = fma(y, T(2.88539008177792681472), T(-0.25)) + rounder;
  const V k = shifted - rounder;
  const V t = tanh_core(fma(k, T(-0.34657359027997265471), y));
  const V half_power = from_bits<V>(bits(shifted) << kMantissaBits<V>);
  const V c = half_power + T(0.5), d = half_power - T(0.5);
  const V n = fma(c, t, d);
  return with_sign(n / (n + (T(1) - t)), x);
}

// log(1 + x) on 0 ≤ x ≤ 1 only (softplus needs no more): x − s(x − s²q(s²)) with s = x/(2 + x), where
// q(z) = (2 artanh(s)/s − 2)/z on z = s² ≤ 1/9 is minimax weighted by z; error 2^−27 (float32), 2^−59 (float64).
template <class V>
NTKFAST_INLINE V log1p(V x) {
  const V s = x / (x + Element<V>(2)), z = s * s;
  V q;
  if constexpr (kSingle<V>) {
    q = polynomial(z, 6.666641235e-01f, 4.002175927e-01f, 2.799797654e-01f, 2.803092003e-01f);
  } else {
    q = polynomial(z, 6.66666666666663077e-01, 4.00000000001560940e-01, 2.85714285479783114e-01,
                   2.22222239629253998e-01, 1.81817441389923673e-01, 1.53865558141793618e-01, 1.33010225181591640e-01,
                   1.21057333333576794e-01, 8.34151340863595464e-02, 1.70161709947538514e-01);
  }
  return fma(-s, fma(-z, q, x), x);
}

}  // namespace ntkfast::NTKFAST_ISA::elementary
