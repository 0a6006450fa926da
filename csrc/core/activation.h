// Elementwise activations σ and their derivatives σ₁, σ₂, σ₃, from base values that are computed once.
//
// An elementary function (tanh z, e⁻|ᶻ|, sin z, …) is the expensive part of an activation and gives all of its
// derivatives. So each activation is two functions:
//   base(z)          the elementary values, by a policy E (vector code on the CPU, the device's own functions in CUDA)
//   sigma(z, base)   σ₀ … σ₃ by arithmetic alone
// V is a scalar or a GCC vector; T is its element type.
//
//   tanh      s = tanh z            σ₁ = 1 − s²             σ₂ = −2sσ₁              σ₃ = −2σ₁(σ₁ − 2s²)
//   sigmoid   s = 1/(1+e⁻ᶻ)         σ₁ = s(1 − s)           σ₂ = σ₁(1 − 2s)         σ₃ = σ₁(1 − 6σ₁)
//   sin       s, c = sin z, cos z   σ₁ = c                  σ₂ = −s                 σ₃ = −c
//   erf                             σ₁ = 2/√π e^(−z²)       σ₂ = −2zσ₁              σ₃ = (4z² − 2)σ₁
//   softplus  y = βz                σ₁ = s(y)               σ₂ = βs'(y)             σ₃ = β²s''(y)
//   SiLU      z s(z)                σ₁ = s + zs'            σ₂ = 2s' + zs''         σ₃ = 3s'' + zs'''
//   GELU      zΦ(z)                 σ₁ = Φ + zφ             σ₂ = (2 − z²)φ          σ₃ = (z³ − 4z)φ
//   GELU, tanh form: z(1 + tanh(y/2))/2 = z s(y) with y = 2k(z + az³); of f = s(y(z)) as of s in SiLU
#pragma once

#include "macros.h"

namespace ntkfast::core {

// The numbers are those of ntkfast/networks.py.
enum class Activation : int {
  identity = 0,
  relu = 1,
  tanh = 2,
  sigmoid = 3,
  sin = 4,
  erf = 5,
  softplus = 6,
  silu = 7,
  gelu = 8,
  gelu_tanh = 9
};
constexpr int kActivations = 10;

template <class T>
struct ActivationParams {
  T beta = 1;        // softplus
  T threshold = 20;  // softplus: linear where βz exceeds it
};

template <class V>
struct Base {
  V a, b;
};

// tanh gives its derivatives from its value: a stash for the pull-back then holds that instead of z₀.
template <Activation A>
constexpr bool kStashesBase = A == Activation::tanh;

template <class V>
struct Sigma {
  V s0, s1, s2, s3;
};

// y = 2k(z + az³) of the tanh form of GELU, k = √(2/π).
template <class T, class V>
NTK_HD V gelu_argument(V z) {
  return (z + z * z * z * T(0.044715)) * T(1.59576912160573071176);
}

template <Activation A, class E, class V, class T>
NTK_HD Base<V> base(V z, ActivationParams<T> p) {
  const V zero{};
  if constexpr (A == Activation::tanh) {
    return {E::tanh(z), zero};
  } else if constexpr (A == Activation::sigmoid || A == Activation::silu) {
    return {E::exp(z < T(0) ? z : -z), zero};
  } else if constexpr (A == Activation::softplus) {
    const V y = z * p.beta;
    const V e = E::exp(y < T(0) ? y : -y);
    return {e, E::log1p(e)};
  } else if constexpr (A == Activation::sin) {
    return {E::sin(z), E::cos(z)};
  } else if constexpr (A == Activation::erf) {
    return {E::erf(z), E::exp(-z * z)};
  } else if constexpr (A == Activation::gelu) {
    return {E::erf(z * T(0.70710678118654752440)), E::exp(z * z * T(-0.5))};
  } else if constexpr (A == Activation::gelu_tanh) {
    const V y = gelu_argument<T>(z);
    return {E::exp(y < T(0) ? y : -y), zero};
  } else {
    return {zero, zero};
  }
}

// The logistic function and its first three derivatives at y, from e = exp(−|y|): no cancellation in either tail.
template <class T, class V>
NTK_HD Sigma<V> logistic(V y, V e) {
  const V r = T(1) / (e + T(1));
  const V s = y < T(0) ? e * r : r;
  const V s1 = e * r * r;
  return {s, s1, s1 * (T(1) - s * T(2)), s1 * (T(1) - s1 * T(6))};
}

// tanh and its first three derivatives, from s = tanh z.
template <class T, class V>
NTK_HD Sigma<V> tanh_sigma(V s) {
  const V s1 = T(1) - s * s;
  return {s, s1, s * s1 * T(-2), s1 * (s1 - s * s * T(2)) * T(-2)};
}

template <class T, class V>
NTK_HD Sigma<V> softplus_sigma(V z, Base<V> base, ActivationParams<T> p) {
  const V y = z * p.beta, zero{}, one = zero + T(1);
  const Sigma<V> s = logistic<T>(y, base.a);
  const V value = ((y < T(0) ? zero : y) + base.b) / p.beta;
  return {y > p.threshold ? z : value, y > p.threshold ? one : s.s0, y > p.threshold ? zero : s.s1 * p.beta,
          y > p.threshold ? zero : s.s2 * (p.beta * p.beta)};
}

// z within ±64, NaN as it is: polynomials times e^(−z²) and its like are zero there, and would be ∞ · 0 farther out.
template <class T, class V>
NTK_HD V near_origin(V z) {
  const V most = V{} + T(64);
  return z > most ? most : z < -most ? -most : z;
}

template <class T, class V>
NTK_HD Sigma<V> gelu_tanh_sigma(V z, V e) {
  constexpr T k2 = T(1.59576912160573071176), a = T(0.044715);
  const Sigma<V> s = logistic<T>(gelu_argument<T>(z), e);
  const V x = near_origin<T>(z);
  const V y1 = (x * x * (T(3) * a) + T(1)) * k2, y2 = x * (T(6) * a * k2);
  const V f1 = s.s1 * y1, f2 = s.s2 * y1 * y1 + s.s1 * y2;
  const V f3 = s.s3 * y1 * y1 * y1 + s.s2 * y1 * y2 * T(3) + s.s1 * (T(6) * a * k2);
  return {z * s.s0, s.s0 + x * f1, f1 * T(2) + x * f2, f2 * T(3) + x * f3};
}

template <Activation A, class V, class T>
NTK_HD Sigma<V> sigma(V z, Base<V> base, ActivationParams<T> p) {
  const V zero{}, one = zero + T(1);
  if constexpr (A == Activation::tanh) {
    return tanh_sigma<T>(base.a);
  } else if constexpr (A == Activation::sigmoid) {
    return logistic<T>(z, base.a);
  } else if constexpr (A == Activation::sin) {
    return {base.a, base.b, -base.a, -base.b};
  } else if constexpr (A == Activation::erf) {
    const V s1 = base.b * T(1.12837916709551257390), y = near_origin<T>(z);
    return {base.a, s1, y * s1 * T(-2), (y * y * T(4) - T(2)) * s1};
  } else if constexpr (A == Activation::softplus) {
    return softplus_sigma(z, base, p);
  } else if constexpr (A == Activation::silu) {
    const Sigma<V> s = logistic<T>(z, base.a);
    return {z * s.s0, s.s0 + z * s.s1, s.s1 * T(2) + z * s.s2, s.s2 * T(3) + z * s.s3};
  } else if constexpr (A == Activation::gelu) {
    const V cdf = (base.a + T(1)) * T(0.5), pdf = base.b * T(0.39894228040143267794), y = near_origin<T>(z);
    return {z * cdf, cdf + y * pdf, (T(2) - y * y) * pdf, (y * y - T(4)) * y * pdf};
  } else if constexpr (A == Activation::gelu_tanh) {
    return gelu_tanh_sigma<T>(z, base.a);
  } else if constexpr (A == Activation::relu) {
    return {z < T(0) ? zero : z, z > T(0) ? one : zero, zero, zero};  // NaN survives
  } else {
    return {z, one, zero, zero};
  }
}

}  // namespace ntkfast::core
