// Faà di Bruno's formula for one neuron of an elementwise activation, and its pull-back, to second order.
//
// Channels of a jet: 0 the value; 1 … F the first derivatives along F directions; F+1 … F+M collapsed channels, each
// the sum of a first-order part (linear, so it needs no term of its own) and second derivatives along the directions
// with weights ω.
//
//   h₀ = σ₀        h_k = σ₁z_k        h_m = σ₁z_m + σ₂ Σ_k ω_mk z_k²
//
// Pull-back of cotangents g (on h) to z:
//
//   z̄_m = σ₁g_m
//   z̄_k = σ₁g_k + 2σ₂z_k Σ_m ω_mk g_m
//   z̄₀  = σ₁g₀ + σ₂ Σ_{c≥1} z_c g_c + σ₃ Σ_m g_m Σ_k ω_mk z_k²
//
// F and M may be ints or std::integral_constant (then the loops unroll). z(c) and g(c) read a channel, h(c, v) and
// zbar(c, v) write one, omega(m, k) reads a weight. zbar may write over z, and over z of earlier channels: directions
// are written in order, each after its z and all else is read, then the collapsed channels and the value.
#pragma once

#include "activation.h"

namespace ntkfast::core {

template <class V, class Dirs, class Collapsed, class Z, class H, class Omega>
NTK_HD void push_forward(const Sigma<V>& s, Dirs F, Collapsed M, Z z, H h, Omega omega) {
  h(0, s.s0);
  for (int m = 0; m < M; ++m) {
    V q{};
    for (int k = 0; k < F; ++k) {
      const V zk = z(1 + k);
      q += zk * zk * omega(m, k);
    }
    h(1 + F + m, s.s1 * z(1 + F + m) + s.s2 * q);
  }
  for (int k = 0; k < F; ++k) h(1 + k, s.s1 * z(1 + k));
}

template <class V, class Dirs, class Collapsed, class Z, class G, class ZBar, class Omega>
NTK_HD void pull_back(const Sigma<V>& s, Dirs F, Collapsed M, Z z, G g, ZBar zbar, Omega omega) {
  V first = s.s1 * g(0), second{}, third{};
  for (int m = 0; m < M; ++m) {
    const V gm = g(1 + F + m);
    V q{};
    for (int k = 0; k < F; ++k) {
      const V zk = z(1 + k);
      q += zk * zk * omega(m, k);
    }
    second += z(1 + F + m) * gm;
    third += q * gm;
  }
  for (int k = 0; k < F; ++k) second += z(1 + k) * g(1 + k);
  for (int k = 0; k < F; ++k) {
    V w{};
    for (int m = 0; m < M; ++m) w += g(1 + F + m) * omega(m, k);
    zbar(1 + k, s.s1 * g(1 + k) + (s.s2 + s.s2) * z(1 + k) * w);
  }
  for (int m = 0; m < M; ++m) zbar(1 + F + m, s.s1 * g(1 + F + m));
  zbar(0, first + s.s2 * second + s.s3 * third);
}

}  // namespace ntkfast::core
