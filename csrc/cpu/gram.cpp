#include "gram.h"

#include "gram_strip.h"

// A layer's part of K, for a tile of rows of one component against a panel of rows of another:
//
//   structured   Σ_cc' (D⁽ᶜ⁾D'⁽ᶜ'⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᶜ'⁾ᵀ) + D⁽⁰⁾D'⁽⁰⁾ᵀ       two small products in cache, multiplied there
//   explicit     J_l J'_lᵀ with J_l = Σ_c D⁽ᶜ⁾ ⊗ A⁽ᶜ⁾, a chunk of its columns at a time
//
// Inside, rows are component-major (all points of one component stand together), so that a tile has one set of
// channels; K itself is point-major. Explicit layers go first and write K, their columns side by side; the structured
// ones go on from there, all of them for a block of tiles before its sums return to K. A symmetric K computes the pairs
// whose first row is not before the second, and mirrors them at the end.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Points first … first + count − 1 of one part, count ≤ kPanel.
struct PanelOf {
  int part;
  int64_t first, count;
};

template <class T>
PanelOf panel_at(const Side<T>& side, int64_t task) {
  int part = 0;
  for (;; ++part) {
    const int64_t panels = ceil_div(side.group_of(part).n, kPanel<T>);
    if (task < panels) break;
    task -= panels;
  }
  const int64_t first = task * kPanel<T>, left = side.group_of(part).n - first;
  return {part, first, left < kPanel<T> ? left : kPanel<T>};
}

template <class T>
int64_t panel_count(const Side<T>& side) {
  int64_t total = 0;
  for (int part = 0; part < side.parts; ++part) total += ceil_div(side.group_of(part).n, kPanel<T>);
  return total;
}

// Runs body(entry of K, entry of the tile) for the rows of a strip and the columns of a panel.
template <class T, class Body>
void for_each_entry(const Gram<T>& p, const Side<T>& x, const Side<T>& y, int part, int64_t first, int64_t count,
                    PanelOf panel, T* sums, const Body& body) {
  for (int64_t r = 0; r < count; ++r) {
    T* row = p.out + x.index(part, first + r) * y.rows;
    for (int64_t j = 0; j < panel.count; ++j) body(row[y.index(panel.part, panel.first + j)], sums[r * kPanel<T> + j]);
  }
}

// Runs body(part, first, count) for the strips of x that pair with a panel: all of them, or one triangle.
template <class T, class Body>
void for_each_strip(const Gram<T>& p, const Side<T>& x, PanelOf panel, const Body& body) {
  for (int part = p.symmetric ? panel.part : 0; part < x.parts; ++part) {
    const int64_t n = x.group_of(part).n;
    for (int64_t first = p.symmetric && part == panel.part ? panel.first : 0; first < n; first += kStripRows<T>)
      body(part, first, n - first < kStripRows<T> ? n - first : kStripRows<T>);
  }
}

// Strips of x that are summed together against one panel of y: all layers pass over them before K is touched again.
constexpr int kBlockStrips = 64;

struct Block {
  struct {
    int part;
    int64_t first, count;
  } strip[kBlockStrips];
  int size = 0;
};

template <class T>
class StructuredLayers {
 public:
  StructuredLayers(const Gram<T>& p, const Side<T>& x, const Side<T>& y, bool write)
      : p_(p), x_(x), y_(y), left_(p, x), write_(write) {
    for (int l = 0; l < p.x.layers; ++l) {
      if (!is_structured(p, l)) continue;
      const Layer<T>& layer = p.x.layer[l];
      inputs_ = layer.n_in > inputs_ ? layer.n_in : inputs_;
      outputs_ = layer.n_out > outputs_ ? layer.n_out : outputs_;
    }
  }

  bool empty() const { return inputs_ == 0; }

  void run(const Parallel& parallel) const {
    left_.split(parallel);
    const int64_t a_size = y_.channels * channel_size<T>(inputs_), d_size = y_.channels * channel_size<T>(outputs_);
    const int64_t size = a_size + d_size + kBlockStrips * kStrip<T>;
    const Buffer<T> memory(parallel.threads * size);
    for_each_task(parallel, panel_count(y_), [&](int64_t task, int slot) {
      const PanelOf panel = panel_at(y_, task);
      T* packed_a = memory.get() + slot * size;
      T* sums = packed_a + a_size + d_size;
      Block block;
      for_each_strip(p_, x_, panel, [&](int part, int64_t first, int64_t count) {
        block.strip[block.size++] = {part, first, count};
        if (block.size == kBlockStrips) add_block(panel, block, packed_a, packed_a + a_size, sums);
      });
      if (block.size > 0) add_block(panel, block, packed_a, packed_a + a_size, sums);
    });
  }

 private:
  void pack(int l, PanelOf panel, T* packed_a, T* packed_d) const {
    const int64_t n_in = p_.x.layer[l].n_in, n_out = p_.x.layer[l].n_out;
    for (int e = 0; e < y_.component_of(panel.part).channels; ++e) {
      pack_channel(y_.A(l, panel.part, e) + panel.first * n_in, panel.count, n_in,
                   packed_a + e * channel_size<T>(n_in));
      pack_channel(y_.D(l, panel.part, e) + panel.first * n_out, panel.count, n_out,
                   packed_d + e * channel_size<T>(n_out));
    }
  }

  void add_block(PanelOf panel, Block& block, T* packed_a, T* packed_d, T* sums) const {
    for (int64_t i = 0; i < block.size * kStrip<T>; ++i) sums[i] = T(0);
    const auto for_all = [&](const auto& body) {
      for (int s = 0; s < block.size; ++s)
        for_each_entry(p_, x_, y_, block.strip[s].part, block.strip[s].first, block.strip[s].count, panel,
                       sums + s * kStrip<T>, body);
    };
    if (!write_) for_all([](T& k, T& sum) { sum = k; });
    for (int l = 0; l < p_.x.layers; ++l) {
      const Layer<T>& layer = p_.x.layer[l];
      if (!is_structured(p_, l)) continue;
      pack(l, panel, packed_a, packed_d);
      for (int s = 0; s < block.size; ++s) {
        const auto& strip = block.strip[s];
        const StripPair<T> pair{left_,        y_,           strip.part, panel.part, strip.first,
                                strip.count, panel.first, panel.count, packed_a,   packed_d};
        StripLayer<T>(layer, l, pair, sums + s * kStrip<T>)
            .add(x_.component_of(strip.part).channels, y_.component_of(panel.part).channels);
      }
    }
    for_all([](T& k, T sum) { k = sum; });
    block.size = 0;
  }

  const Gram<T>& p_;
  const Side<T>&x_, &y_;
  const LeftSide<T> left_;
  bool write_;
  int64_t inputs_ = 0, outputs_ = 0;
};

// The columns of J of all explicit layers, one layer after the other. Within a layer column m(n_in+1) + n is W[m, n],
// column m(n_in+1) + n_in is b[m].
template <class T>
int64_t columns_of(const Layer<T>& layer) {
  return layer.n_out * (layer.n_in + 1);
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
      const T scaled = layer.weight_jacobian * d;
      for (int64_t k = begin; k < (end < layer.n_in ? end : layer.n_in); ++k) row[k] += scaled * a[k];
      if (c == 0 && end == period && begin <= layer.n_in) row[layer.n_in] = layer.bias_jacobian * d;
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

template <class T>
void explicit_layers(const Gram<T>& p, const Side<T>& x, const Side<T>& y, int64_t columns, const Parallel& parallel) {
  const int64_t chunk = columns < p.chunk ? columns : p.chunk;
  const Buffer<T> jx(x.rows * chunk), jy(p.symmetric ? 0 : y.rows * chunk),
      memory(parallel.threads * chunk * kPanel<T>);
  for (int64_t from = 0; from < columns; from += chunk) {
    const int64_t depth = columns - from < chunk ? columns - from : chunk;
    fill_jacobian(p, x, from, depth, jx.get(), parallel);
    if (!p.symmetric) fill_jacobian(p, y, from, depth, jy.get(), parallel);
    const T* other = p.symmetric ? jx.get() : jy.get();
    for_each_task(parallel, panel_count(y), [&](int64_t task, int slot) {
      const PanelOf panel = panel_at(y, task);
      T* packed = memory.get() + slot * chunk * kPanel<T>;
      by_vectors::pack_rows<T>(other + (y.row.get()[panel.part] + panel.first) * depth, depth, panel.count, depth, T(1),
                               packed);
      alignas(64) T sums[kStrip<T>];
      for_each_strip(p, x, panel, [&](int part, int64_t first, int64_t count) {
        for (T& sum : sums) sum = T(0);
        // The sum goes on from K itself, so that it has one order whatever the chunk.
        if (from > 0) for_each_entry(p, x, y, part, first, count, panel, sums, [](T& k, T& sum) { sum = k; });
        by_vectors::panel_product<true, false>(count, jx.get() + (x.row.get()[part] + first) * depth, depth, packed,
                                               kPanel<T>, depth, sums, kPanel<T>);
        for_each_entry(p, x, y, part, first, count, panel, sums, [](T& k, T sum) { k = sum; });
      });
    });
  }
}

// Copies the triangle that was computed to the other one, in square blocks, so that neither side leaves the cache line by
// line. A task is a block of rows against all blocks before it, whatever parts they belong to.
template <class T>
void mirror(const Gram<T>& p, const Side<T>& x, const Parallel& parallel) {
  constexpr int64_t kBlock = 32;
  const Buffer<int64_t> at(x.rows);  // position in K of every component-major row
  for (int part = 0; part < x.parts; ++part)
    for (int64_t i = 0; i < x.group_of(part).n; ++i) at.get()[x.row.get()[part] + i] = x.index(part, i);
  for_each_task(parallel, ceil_div(x.rows, kBlock), [&](int64_t task, int) {
    const int64_t begin = task * kBlock, end = begin + kBlock < x.rows ? begin + kBlock : x.rows;
    for (int64_t other = 0; other < end; other += kBlock)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = other; j < other + kBlock && j < i; ++j)
          p.out[at.get()[j] * x.rows + at.get()[i]] = p.out[at.get()[i] * x.rows + at.get()[j]];
  });
}

}  // namespace

template <class T>
void gram(const Gram<T>& p, const Parallel& parallel) {
  const Side<T> x(p.x), y(p.y);
  int64_t columns = 0;
  for (int l = 0; l < p.x.layers; ++l)
    if (takes_part(p.x.layer[l]) && p.use_explicit[l]) columns += columns_of(p.x.layer[l]);
  if (columns > 0) explicit_layers(p, x, y, columns, parallel);
  const StructuredLayers<T> structured(p, x, y, columns == 0);
  if (!structured.empty()) structured.run(parallel);
  if (columns == 0 && structured.empty())
    for (int64_t i = 0; i < x.rows * y.rows; ++i) p.out[i] = T(0);
  else if (p.symmetric) mirror(p, x, parallel);
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(gram, Gram)
