#include "vjp.h"

#include <cstring>

#include "buffer.h"
#include "long_sums.h"
#include "parallel.h"
#include "product.h"

// (Jᵀx)[W] = Σ_c (x ∘ D⁽ᶜ⁾)ᵀ A⁽ᶜ⁾        (Jᵀx)[b] = Σ_i x_i D_i⁽⁰⁾
//
// One product per layer whose inner index runs over all rows of A: the components of a point share them, so that their
// cotangents are added up first, Σ_j x_j D_j. A task owns a band of rows of W, so that the sum
// over rows has one order and needs no reduction. Rows are taken in blocks: the block of x∘D is packed once, the block
// of A panel by panel. First and last layers have few inputs or few outputs: there tiles would be mostly empty, and
// outer products, row by row, take their place.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int64_t kRowBlock = 128;
constexpr int64_t kRowsOfSum = 16 * kRowBlock;  // of LongSums
constexpr int64_t kBand = 252;
constexpr int64_t kNarrow = 4;

// The cotangents that row r of the stack A is multiplied with, Σ_t x[t] ∘ D[d[t]] over first[r] ≤ t < first[r+1]: one
// for each component that has its channel. Rows of the value channel are the bias's own.
template <class T>
struct RowMap {
  int64_t rows = 0, terms = 0;
  int64_t *a, *first, *d;
  T* x;
  bool* is_value;
};

// Channel `channel` of a group.
template <class T>
void fill_channel(const Vjp<T>& p, const Group<T>& group, int channel, RowMap<T>& map) {
  for (int64_t i = 0; i < group.n; ++i) {
    const int64_t before = map.terms;
    for (int j = 0; j < group.components; ++j) {
      const Component& component = group.component[j];
      for (int c = 0; c < component.channels; ++c) {
        if (component.channel[c] != channel) continue;
        map.d[map.terms] = component.row + c * group.n + i;
        map.x[map.terms++] = p.x[group.residual_row + i * group.components + j];
      }
    }
    if (map.terms == before) return;  // nobody asks for it
    map.a[map.rows] = group.row + channel * group.n + i;
    map.is_value[map.rows] = channel == 0;
    map.first[++map.rows] = map.terms;
  }
}

template <class T>
void fill_row_map(const Vjp<T>& p, RowMap<T>& map) {
  map.first[0] = 0;
  for (int g = 0; g < p.sweep.groups; ++g)
    for (int channel = 0; p.sweep.group[g].selected && channel < p.sweep.group[g].channels; ++channel)
      fill_channel(p, p.sweep.group[g], channel, map);
}

// Features first … first + height − 1 of those that a layer's bands divide into nearly equal parts.
struct Band {
  int64_t first, height;
};

inline Band band_of(int64_t b, int64_t bands, int64_t features) {
  const int64_t even = features / bands, rest = features % bands;
  return {b * even + (b < rest ? b : rest), even + (b < rest)};
}

template <class T>
int64_t sums_size(const Layer<T>& layer, int64_t height) {
  return ceil_div(layer.n_in, kPanel<T>) * height * kPanel<T>;
}

// Memory of a band: its sums, the cotangents of a block of rows, transposed and split where the product asks for it,
// and one panel of inputs.
template <class T>
int64_t band_size(const Layer<T>& layer, int64_t height) {
  const int64_t row = ceil_div(height, 16) * 16;
  return sums_size(layer, height) + kRowBlock * row + left_size<T>(height, kRowBlock) +
         packed_size<T>(kPanel<T>, kRowBlock);
}

// A band's rows of the weight gradient.
template <class T>
void weight_band(const Vjp<T>& p, int l, const RowMap<T>& map, Band band, T* memory, double* before) {
  const Layer<T>& layer = p.sweep.layer[l];
  const int64_t height = band.height, panels = ceil_div(layer.n_in, kPanel<T>), row = ceil_div(height, 16) * 16;
  T* sums = memory;                                 // (panels, height, kPanel)
  T* cotangents = sums + sums_size(layer, height);  // (depth, row)
  T* split = cotangents + kRowBlock * row;
  T* packed = split + left_size<T>(height, kRowBlock);
  const LongSums<T> gradient(sums, before, sums_size(layer, height));
  for (int64_t from = 0; from < map.rows; from += kRowBlock) {
    if (from > 0 && from % kRowsOfSum == 0) gradient.go_on();
    const int64_t depth = map.rows - from < kRowBlock ? map.rows - from : kRowBlock;
    for (int64_t k = 0; k < depth; ++k) {
      T* sum = cotangents + k * row;
      for (int64_t t = map.first[from + k]; t < map.first[from + k + 1]; ++t) {
        const T* d = p.sweep.D[l] + map.d[t] * layer.n_out + band.first;
        const T x = map.x[t] * layer.weight_jacobian;
        const bool adds = t > map.first[from + k];
        for (int64_t m = 0; m < height; ++m) sum[m] = adds ? sum[m] + x * d[m] : x * d[m];
      }
    }
    const Left<T> left = left_of_columns(cotangents, row, height, depth, split);
    for (int64_t q = 0; q < panels; ++q) {
      const Columns columns = panel_columns<T>(q, layer.n_in);
      pack_columns<T>([&](int64_t k) { return p.sweep.A[l] + map.a[from + k] * layer.n_in + columns.first; },
                      columns.width, depth, [](int64_t) { return T(1); }, packed);
      product<true, true>(left, height, packed, columns.width, depth, sums + q * height * kPanel<T>, kPanel<T>);
    }
  }
  gradient.finish();
  for (int64_t m = 0; m < height; ++m)
    for (int64_t q = 0; q < panels; ++q) {
      const auto [column, width] = panel_columns<T>(q, layer.n_in);
      std::memcpy(p.weight[l] + (band.first + m) * layer.n_in + column, sums + (q * height + m) * kPanel<T>,
                  width * sizeof(T));
    }
}

template <class T>
bool is_narrow(const Layer<T>& layer) {
  return layer.n_in <= kNarrow || layer.n_out <= kNarrow;
}

// The features of a layer that its bands divide: the outputs, but of a narrow layer the wider side.
template <class T>
int64_t banded_features(const Layer<T>& layer) {
  return is_narrow(layer) && layer.n_in > layer.n_out ? layer.n_in : layer.n_out;
}

// The weight gradient of a narrow layer for one band of its wider side; sums: (narrow side, height).
template <class T>
void narrow_band(const Vjp<T>& p, int l, const RowMap<T>& map, Band band, T* sums, double* before) {
  const Layer<T>& layer = p.sweep.layer[l];
  const bool wide_inputs = layer.n_in > layer.n_out;
  const int64_t narrow = wide_inputs ? layer.n_out : layer.n_in, height = band.height;
  const LongSums<T> gradient(sums, before, narrow * height);
  for (int64_t r = 0; r < map.rows; ++r) {
    if (r > 0 && r % kRowsOfSum == 0) gradient.go_on();
    for (int64_t t = map.first[r]; t < map.first[r + 1]; ++t) {
      const T* a = p.sweep.A[l] + map.a[r] * layer.n_in;
      const T* d = p.sweep.D[l] + map.d[t] * layer.n_out;
      const T* wide = (wide_inputs ? a : d) + band.first;
      const T* thin = wide_inputs ? d : a;
      for (int64_t k = 0; k < narrow; ++k) {
        const T factor = map.x[t] * layer.weight_jacobian * thin[k];
        T* to = sums + k * height;
        for (int64_t m = 0; m < height; ++m) to[m] += factor * wide[m];
      }
    }
  }
  gradient.finish();
  const int64_t along = wide_inputs ? 1 : layer.n_in, across = wide_inputs ? layer.n_in : 1;
  for (int64_t k = 0; k < narrow; ++k)
    for (int64_t m = 0; m < height; ++m) p.weight[l][k * across + (band.first + m) * along] = sums[k * height + m];
}

template <class T>
void bias_gradient(const Vjp<T>& p, int l, const RowMap<T>& map, double* before) {
  const Layer<T>& layer = p.sweep.layer[l];
  T* to = p.bias[l];
  const LongSums<T> gradient(to, before, layer.n_out);
  for (int64_t r = 0; r < map.rows; ++r) {
    if (r > 0 && r % kRowsOfSum == 0) gradient.go_on();
    if (!map.is_value[r]) continue;
    for (int64_t t = map.first[r]; t < map.first[r + 1]; ++t) {
      const T* row = p.sweep.D[l] + map.d[t] * layer.n_out;
      const T x = map.x[t] * layer.bias_jacobian;
      for (int64_t m = 0; m < layer.n_out; ++m) to[m] += x * row[m];
    }
  }
  gradient.finish();
}

}  // namespace

template <class T>
void vjp(const Vjp<T>& p, const Parallel& parallel) {
  const Sweep<T>& sweep = p.sweep;
  const int L = sweep.layers;
  Buffer<int64_t> inputs(sweep.rows), first(sweep.rows + 1), cotangents(sweep.cotangent_rows);
  Buffer<T> factor(sweep.cotangent_rows);
  Buffer<bool> is_value(sweep.rows);
  RowMap<T> map{0, 0, inputs.get(), first.get(), cotangents.get(), factor.get(), is_value.get()};
  fill_row_map(p, map);
  Buffer<int64_t> start(L + 1), bands(L + 1);
  int64_t memory = 0, sums = 0;
  start[0] = 0;
  for (int l = 0; l < L; ++l) {
    const Layer<T>& layer = sweep.layer[l];
    const int64_t features = banded_features(layer);
    int64_t count = ceil_div(features, kBand);
    if (features >= parallel.threads * kTileRows) count = ceil_div(count, parallel.threads) * parallel.threads;
    bands[l] = count;
    start[l + 1] = start[l] + (p.weight[l] != nullptr ? count : 0);
    const int64_t height = ceil_div(features, count);
    const int64_t size = is_narrow(layer) ? kNarrow * height : band_size(layer, height);
    memory = size > memory ? size : memory;
    const int64_t of_weight = is_narrow(layer) ? size : sums_size(layer, height);
    for (const int64_t most : {of_weight, layer.n_out}) sums = most > sums ? most : sums;
  }
  memory = ceil_div(memory, 64) * 64;
  const Buffer<T> scratch(parallel.threads * memory);
  const Buffer<double> before(map.rows > kRowsOfSum ? parallel.threads * sums : 0);
  const int64_t weight_tasks = start[L];
  for_each_task(parallel, weight_tasks + L, [&](int64_t task, int slot) {
    double* own = map.rows > kRowsOfSum ? before.get() + slot * sums : nullptr;
    if (task >= weight_tasks) {
      const int l = static_cast<int>(task - weight_tasks);
      if (p.bias[l] != nullptr) bias_gradient(p, l, map, own);
      return;
    }
    const int l = part_of_task(start.get(), task);
    const Layer<T>& layer = sweep.layer[l];
    const Band band = band_of(task - start[l], bands[l], banded_features(layer));
    T* of_band = scratch.get() + slot * memory;
    if (is_narrow(layer)) narrow_band(p, l, map, band, of_band, own);
    else weight_band(p, l, map, band, of_band, own);
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(vjp, Vjp)
