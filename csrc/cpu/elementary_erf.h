// erf on vectors: x + x p(x²) where |x| is small, 1 − e^g(|x|) with g = log erfc beyond, both computed, one selected.
#pragma once

#include "elementary_exp.h"
#include "vector.h"

namespace ntkfast::NTKFAST_ISA::elementary {

template <class V>
constexpr Element<V> kErfSplit = kSingle<V> ? Element<V>(0.92) : Element<V>(1);
template <class V>
constexpr Element<V> kErfOne = kSingle<V> ? Element<V>(4) : Element<V>(6);  // erf rounds to 1 from here on

// erf(x)/x − 1 as a polynomial in z = x² below the split: minimax; error 2^−26 (float32), 2^−56 (float64).
template <class V>
NTKFAST_INLINE V erf_small(V z) {
  if constexpr (kSingle<V>) {
    return polynomial(z, 1.283791512e-01f, -3.761250377e-01f, 1.128191799e-01f, -2.677032165e-02f, 4.998634569e-03f,
                      -6.018579006e-04f);
  } else {
    return polynomial(z, 1.28379167095512559e-01, -3.76126389031833375e-01, 1.12837916709364591e-01,
                      -2.68661706418415573e-02, 5.22397759547518596e-03, -8.54832541149006496e-04,
                      1.20552779365117141e-04, -1.49244100078554933e-05, 1.64433899219641811e-06,
                      -1.61776337937872371e-07, 1.35870407663921556e-08, -7.54865799258914626e-10);
  }
}

// log erfc(a) from the split to where erf is 1: minimax weighted by erfc/erf; error in erf 2^−29 (float32), 2^−57
// (float64).
template <class V>
NTKFAST_INLINE V log_erfc(V a) {
  if constexpr (kSingle<V>) {
    return polynomial(a, -1.964047406e-04f, -1.127672434e+00f, -6.371879578e-01f, -1.039262637e-01f, 2.222418226e-02f,
                      -3.042486263e-03f, 1.958581561e-04f);
  } else {
    return polynomial(a, -5.14539098966016788e-07, -1.12837397799929740e+00, -6.36644121543286090e-01,
                      -1.02702093450246709e-01, 1.89876454059550830e-02, 4.14118061281983606e-04,
                      -1.91958646927903082e-03, 7.73585358439128341e-04, -1.36910822716596335e-04,
                      -1.93405501972083036e-05, 2.24597194979361207e-05, -8.55600378825060623e-06,
                      2.10937018265726551e-06, -3.68596703791635573e-07, 4.58085336403540396e-08,
                      -3.87913521730375280e-09, 2.01462054093848763e-10, -4.85151559986227664e-12);
  }
}

// erf x. In 1 − eᵍ the exponential is at most 0.2, so its error counts a fifth, and one part of ln 2 is enough.
template <class V>
NTKFAST_INLINE V erf(V x) {
  using T = Element<V>;
  constexpr T rounder = kRounder<V> + T(kExponentBias<V>);
  V a = abs(x);
  a = at_most(a, kErfOne<V>);
  const V g = log_erfc(a);
  const V shifted = fma(g, T(1.44269504088896340736), rounder);
  const V r = fma(shifted - rounder, T(-0.69314718055994530942), g);
  const V p = fma(r * r, exp_tail(r), r);
  const V power = from_bits<V>(bits(shifted) << kMantissaBits<V>);
  const V big = fma(-p, power, T(1) - power);
  const V small = fma(a, erf_small(a * a), a);
  return with_sign(a < kErfSplit<V> ? small : big, x);
}

}  // namespace ntkfast::NTKFAST_ISA::elementary
