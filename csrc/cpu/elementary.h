// The elementary functions of one instruction-set level, as the policy E of core/activation.h.
//
// Polynomials and quotients of them, without branches or tables; V is any GCC vector of float or double. NaN gives NaN,
// odd functions keep the sign of zero, subnormals count. Largest errors seen, over all levels, in ulp:
//
//              tanh   exp   log1p (on [0, 1])   sin, cos (|x| ≤ 10⁵; 10⁸)   erf
//   float32    1.8    1.1   1.4                 1.6                         1.2
//   float64    1.9    1.1   1.4                 2.4                         1.2
//
// tests/cpu/test_elementary.py holds them to 2 in float32 and 4 in float64.
#pragma once

#include "elementary_erf.h"
#include "elementary_exp.h"
#include "elementary_trig.h"
#include "vector.h"

namespace ntkfast::NTKFAST_ISA {

struct Elementary {
  template <class V>
  static NTKFAST_INLINE V tanh(V x) {
    return elementary::tanh(x);
  }
  template <class V>
  static NTKFAST_INLINE V exp(V x) {
    return elementary::exp(x);
  }
  // On 0 ≤ x ≤ 1 only, which is what softplus needs.
  template <class V>
  static NTKFAST_INLINE V log1p(V x) {
    return elementary::log1p(x);
  }
  template <class V>
  static NTKFAST_INLINE V sin(V x) {
    return elementary::sin(x);
  }
  template <class V>
  static NTKFAST_INLINE V cos(V x) {
    return elementary::cos(x);
  }
  template <class V>
  static NTKFAST_INLINE V erf(V x) {
    return elementary::erf(x);
  }
};

}  // namespace ntkfast::NTKFAST_ISA
