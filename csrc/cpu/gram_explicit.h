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
    if (takes_part(p.x.layer[l]) && p.use_explicit[l]) columns += columns_of(p.x.layer[l]);
  return columns;
}

// Entries from … from + depth − 1 of point i's row of one layer's J, added to zeros.
template <class T>
void add_jacobian_row(const Layer<T>& layer, const Side<T>& side, int l, int part, int64_t i, int64_t from,
                      int64_t depth, T* to) {
  const int64_t period = layer.n_in + 1;
  const int channels = side.component_of(part).channels;
  for (int64_t m = from / period; m * period < from + depth; ++m) {
    const int64_t begin = m * period < from ? from - m * period : 0;
    const int64_t end = (m + 1) * period > from + depth ? from + depth - m * period : period;
    T* row = to + m * period - from;
    for (int c = 0; c < channels; ++c) {
      const T d = side.D(l, part, c)[i * layer.n_out + m];
      const T* a = side.A(l, part, c) + i * layer.n_in;
      const T weight = layer.weight_jacobian, bias = layer.bias_jacobian;  // zero times infinity must not be added
      for (int64_t k = begin; weight != T(0) && k < (end < layer.n_in ? end : layer.n_in); ++k)
        row[k] += weight * d * a[k];
      if (bias != T(0) && c == 0 && end == period && begin <= layer.n_in) row[layer.n_in] = bias * d;
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
        T* to = J + (side.row.get()[part] + i) * depth;
        for (int64_t k = 0; k < depth; ++k) to[k] = T(0);
        int64_t start = 0;  // the layer's first column among all
        for (int l = 0; l < p.x.layers; ++l) {
          const Layer<T>& layer = p.x.layer[l];
          if (!takes_part(layer) || !p.use_explicit[l]) continue;
          const int64_t columns = columns_of(layer), first = from > start ? from - start : 0;
          const int64_t last = from + depth < start + columns ? from + depth - start : columns;
          if (first < last) add_jacobian_row(layer, side, l, part, i, first, last - first, to + start + first - from);
          start += columns;
        }
      }
    });
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
