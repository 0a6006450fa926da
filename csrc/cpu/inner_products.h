// Channel inner products of single rows, and the diagonal of the Gram matrix that they give.
//
//   K_ii = Σ_cc' ⟨D_i⁽ᶜ⁾, D_i⁽ᶜ'⁾⟩ ⟨A_i⁽ᶜ⁾, A_i⁽ᶜ'⁾⟩ + ‖D_i⁽⁰⁾‖²        (weight and bias of one layer)
//
// Products are stored by pairs of channels (core/channel_pairs.h).
#pragma once

#include "../core/channel_pairs.h"
#include "../core/layer_part.h"
#include "activation_panel.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

using core::pairs_of;
constexpr int pair(int c, int e) { return c >= e ? core::place_of(c, e) : core::place_of(e, c); }

// Up to these many, loops over channels have a fixed length: second derivatives in three coordinates.
constexpr int kMostChannels = 5;

// Calls body(number of channels), a constant, if there are no more than that; says whether.
template <int C = 1, class Body>
bool with_channels(int channels, const Body& body) {
  if constexpr (C <= kMostChannels) {
    if (channels != C) return with_channels<C + 1>(channels, body);
    body(std::integral_constant<int, C>{});
    return true;
  }
  return false;
}

template <class T, int C>
void inner_products_fixed(Points points, Stack<T> x, int64_t width, T* products) {
  for (int64_t i = points.first; i < points.first + points.count; ++i) {
    const T* row = x.data + i * x.row;
    Vec<T> total[pairs_of(C)] = {};
    const auto add = [&](int64_t j, auto read) {
      Vec<T> v[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) v[c] = read(row + c * x.channel + j);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
        for (int e = 0; e <= c; ++e) total[pair(c, e)] += v[c] * v[e];
    };
    int64_t j = 0;
    for (; j + kLanes<T> <= width; j += kLanes<T>) add(j, [](const T* p) { return load<T>(p); });
    const int rest = static_cast<int>(width - j);
    if (rest > 0) add(j, [rest](const T* p) { return load_partial<T>(p, rest); });
    store_sums<pairs_of(C)>(total, products + i * pairs_of(C));
  }
}

template <class T>
T dot(const T* x, const T* y, int64_t n) {
  Vec<T> total{};
  int64_t j = 0;
  for (; j + kLanes<T> <= n; j += kLanes<T>) total += load<T>(x + j) * load<T>(y + j);
  const int rest = static_cast<int>(n - j);
  if (rest > 0) total += load_partial<T>(x + j, rest) * load_partial<T>(y + j, rest);
  return sum(total);
}

// Some points' rows of products: (count, pairs_of(channels)).
template <class T>
void inner_products(int channels, Points points, const Stack<T>& x, int64_t width, T* products) {
  const auto fixed = [&](auto C) { inner_products_fixed<T, C>(points, x, width, products); };
  if (with_channels(channels, fixed)) return;
  for (int64_t i = points.first; i < points.first + points.count; ++i)
    for (int c = 0; c < channels; ++c)
      for (int e = 0; e <= c; ++e)
        products[i * pairs_of(channels) + pair(c, e)] =
            dot(x.data + c * x.channel + i * x.row, x.data + e * x.channel + i * x.row, width);
}

// One layer's part of the diagonal for some points of one tile of one component, from the inner products of A (all
// channels of the group) and of D (the component's). `stride` is the distance of the component's rows in `diag`.
// kChannels: their number where a component has all channels of its group and the layer its weight, as most do; else 0.
template <class T, int kChannels>
void contract_rows(const Layer<T>& layer, const Component& component, Points points, const T* a, int a_pairs,
                   const T* d, double* diag, int64_t stride) {
  const core::LayerPart part(layer);
  const int d_pairs = pairs_of(component.channels);
  for (int64_t i = points.first; i < points.first + points.count; ++i) {
    const T *a_i = a + i * a_pairs, *d_i = d + i * d_pairs;
    double total = 0;
    const auto add = [&](int c, int e, int at) { total += core::times_of(c, e) * d_i[pair(c, e)] * a_i[at]; };
    if constexpr (kChannels > 0) {
#pragma GCC unroll 8
      for (int c = 0; c < kChannels; ++c)
#pragma GCC unroll 8
        for (int e = 0; e <= c; ++e) add(c, e, pair(c, e));
    } else if (part.weight != 0) {  // without the weight there are no products of A
      for (int c = 0; c < component.channels; ++c)
        for (int e = 0; e <= c; ++e) add(c, e, pair(component.channel[c], component.channel[e]));
    }
    diag[i * stride] = core::squared_norm(part(total, d_i[0]));
  }
}

template <class T>
void contract_diag(const Layer<T>& layer, const Component& component, Points points, const T* a, int a_pairs,
                   const T* d, double* diag, int64_t stride) {
  const bool all = a_pairs == pairs_of(component.channels) && layer.weight_jacobian != T(0);
  const auto fixed = [&](auto C) { contract_rows<T, C>(layer, component, points, a, a_pairs, d, diag, stride); };
  if (all && with_channels(component.channels, fixed)) return;
  contract_rows<T, 0>(layer, component, points, a, a_pairs, d, diag, stride);
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
