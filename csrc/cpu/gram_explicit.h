// The Jacobian of the layers that form it, a chunk of columns at a time.
#pragma once

#include "gram_sides.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// The columns of J of all explicit layers, one layer after the other. Within a layer column m(n_in+1) + n is W[m, n],
// column m(n_in+1) + n_in is b[m].
template <class T>
int64_t columns_of(const Layer<T>& layer) {
  return layer.n_out * (layer.n_in + 1);
}

template <class T>
int64_t explicit_columns(const Gram<T>& p) {
  int64_t columns = 0;
  for (int l = 0; l < p.x.layers; ++l)
    if (p.x.layer[l].active && p.use_explicit[l]) columns += columns_of(p.x.layer[l]);
  return columns;
}

// What a layer's J is made of at one point.
template <class T>
struct PointFactors {
  const Layer<T>& layer;
  const Side<T>& side;
  int l, part;
  int64_t i;
  int channels() const { return side.component_of(part).channels; }
  const T* A(int c) const { return side.A(l, part, side.component_of(part).channel[c]) + i * layer.n_in; }
  const T* D(int c) const { return side.D(l, part, c) + i * layer.n_out; }
};

// Entries from … from + depth − 1 of a point's row of one layer's J, added to zeros; vectors run along rows of W.
template <class T>
void add_long_rows(const PointFactors<T>& f, int64_t from, int64_t depth, T* to) {
  const Layer<T>& layer = f.layer;
  const int64_t period = layer.n_in + 1;
  const T weight = layer.weight_jacobian, bias = layer.bias_jacobian;  // zero times infinity must not be added
  for (int64_t m = from / period; m * period < from + depth; ++m) {
    const int64_t begin = m * period < from ? from - m * period : 0;
    const int64_t end = (m + 1) * period > from + depth ? from + depth - m * period : period;
    T* row = to + m * period - from;
    for (int c = 0; c < f.channels(); ++c) {
      const T d = f.D(c)[m];
      const T* a = f.A(c);
      for (int64_t k = begin; weight != T(0) && k < (end < layer.n_in ? end : layer.n_in); ++k)
        row[k] += weight * d * a[k];
      if (bias != T(0) && c == 0 && end == period && begin <= layer.n_in) row[layer.n_in] = bias * d;
    }
  }
}

// The same where rows of W are shorter than a vector: vectors run over its columns, some rows at a time.
template <class T>
void add_short_rows(const PointFactors<T>& f, int64_t from, int64_t depth, T* to) {
  constexpr int kSome = kLanes<T>;
  const Layer<T>& layer = f.layer;
  const int64_t period = layer.n_in + 1;
  const T weight = layer.weight_jacobian, bias = layer.bias_jacobian;
  T column[kSome][kSome];
  for (int64_t m = from / period; m * period < from + depth; m += kSome) {
    const int64_t count = layer.n_out - m < kSome ? layer.n_out - m : kSome;
    for (int64_t k = 0; k < period; ++k) {
      Vec<T> sum{};
      for (int c = 0; k < layer.n_in && weight != T(0) && c < f.channels(); ++c)
        sum = fma<Vec<T>>(load_up_to<T>(f.D(c) + m, count) * weight, f.A(c)[k], sum);
      if (k == layer.n_in && bias != T(0)) sum = load_up_to<T>(f.D(0) + m, count) * bias;
      store<T>(column[k], sum);
    }
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = (m + r) * period - from;  // where it starts among the entries that are asked for
      const int64_t begin = row < 0 ? -row : 0, end = row + period > depth ? depth - row : period;
      for (int64_t k = begin; k < end; ++k) to[row + k] = column[k][r];
    }
  }
}

// Columns from … from + depth − 1 of the explicit layers' J, for all rows.
template <class T>
void fill_jacobian(const Gram<T>& p, const Side<T>& side, int64_t from, int64_t depth, T* J, const Parallel& parallel) {
  constexpr int64_t kPoints = 16;
  for (int part = 0; part < side.parts; ++part) {
    const int64_t n = side.group_of(part).n;
    for_each_task(parallel, ceil_div(n, kPoints), [&](int64_t task, int) {
      for (int64_t i = task * kPoints; i < n && i < (task + 1) * kPoints; ++i) {
        T* to = J + (side.row[part] + i) * depth;
        for (int64_t k = 0; k < depth; ++k) to[k] = T(0);
        int64_t start = 0;  // the layer's first column among all
        for (int l = 0; l < p.x.layers; ++l) {
          const Layer<T>& layer = p.x.layer[l];
          if (!layer.active || !p.use_explicit[l]) continue;
          const int64_t columns = columns_of(layer), first = from > start ? from - start : 0;
          const int64_t last = from + depth < start + columns ? from + depth - start : columns;
          const PointFactors<T> factors{layer, side, l, part, i};
          const auto add = layer.n_in < kLanes<T> ? add_short_rows<T> : add_long_rows<T>;
          if (first < last) add(factors, first, last - first, to + start + first - from);
          start += columns;
        }
      }
    });
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
