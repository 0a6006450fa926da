#include "gram.h"
#include "layers.cuh"
#include "parts.cuh"
#include "tile.cuh"

// A tile of K, 64 points of one component against 64 of another, by one block:
//
//   K = Σ_layers Σ_cc' (D⁽ᶜ⁾D'⁽ᶜ'⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᶜ'⁾ᵀ) + D⁽⁰⁾D'⁽⁰⁾ᵀ
//
// Both products of a pair of channels stay in registers, where they are multiplied and summed over channels and layers:
// K is written once (with more layers than a launch takes, once a launch). A symmetric K computes the tiles on and
// below its diagonal and writes every entry to both places.

namespace ntkfast::cuda {
namespace {

template <class T>
using Sums = T[kSide][kSide];

// Four tiles of sums are alive at once: in float64 they take the registers of a whole multiprocessor.
template <class T>
constexpr int kGramBlocks = sizeof(T) == 4 ? 2 : 1;

// One component of one side. Channel c stands in rows a_row + channel(c)·n of A and d_row + c·n of D.
struct GramPart {
  int64_t n, a_row, d_row, residual_row, first_tile;
  int stride, channels, first_channel, number, tile_points;
};

struct GramSide {
  int count;
  GramPart part[kMaxGroups];
  uint16_t channel[kMaxTableChannels];
};

template <class T>
struct GramLayer {
  const T *A, *D, *other_A, *other_D;
  int64_t n_in, n_out;
  T weight, bias;  // squares of the scales in the Jacobian
};

template <class T>
struct GramParams {
  T* out;
  int64_t pitch;  // columns of K
  bool symmetric, add;
  int layers;
  GramSide x, y;
  GramLayer<T> layer[kMaxLayers];
};
static_assert(sizeof(GramParams<double>) <= 4096, "kernels take at most 4 kB");

// The tile that a block computes.
struct GramTile {
  PointTile x, y;
};

// sum += rows of x times rows of y, both (64, width).
template <class T>
__device__ __forceinline__ void add_rows(const T* x, const T* y, const GramTile& tile, int64_t width, T* shared,
                                         Sums<T>& sum) {
  const int depth = static_cast<int>(width);
  add_product(AlongDepth<T>{x, width, depth, tile.x.count}, AlongDepth<T>{y, width, depth, tile.y.count}, depth, shared,
              sum);
}

// term += (D⁽ᶜ⁾D'⁽ᵉ⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᵉ⁾ᵀ), and on the value channels D⁽⁰⁾D'⁽⁰⁾ᵀ.
template <class T>
__device__ __forceinline__ void add_term(const GramParams<T>& p, const GramLayer<T>& layer, const GramTile& tile, int c,
                                         int e, T* shared, Sums<T>& term) {
  const GramPart &x = p.x.part[tile.x.entry], &y = p.y.part[tile.y.entry];
  const bool values = c == 0 && e == 0;
  if (layer.weight == T(0) && !values) return;
  Sums<T> inputs = {}, cotangents = {};
  if (layer.weight != T(0)) {
    const int64_t row = x.a_row + p.x.channel[x.first_channel + c] * x.n + tile.x.first;
    const int64_t other = y.a_row + p.y.channel[y.first_channel + e] * y.n + tile.y.first;
    add_rows(layer.A + row * layer.n_in, layer.other_A + other * layer.n_in, tile, layer.n_in, shared, inputs);
  }
  const int64_t row = x.d_row + c * x.n + tile.x.first, other = y.d_row + e * y.n + tile.y.first;
  add_rows(layer.D + row * layer.n_out, layer.other_D + other * layer.n_out, tile, layer.n_out, shared, cotangents);
  const T bias = values ? layer.bias : T(0);
#pragma unroll
  for (int r = 0; r < kSide; ++r)
#pragma unroll
    for (int q = 0; q < kSide; ++q) term[r][q] += (layer.weight * inputs[r][q] + bias) * cotangents[r][q];
}

// The terms (c, e) and (e, c) are added to each other first: the sum is then the same, bit for bit, with x and y
// exchanged.
template <class T>
__device__ __forceinline__ void add_layer(const GramParams<T>& p, const GramLayer<T>& layer, const GramTile& tile,
                                          T* shared, Sums<T>& sum) {
  const int x_channels = p.x.part[tile.x.entry].channels, y_channels = p.y.part[tile.y.entry].channels;
  const int channels = x_channels > y_channels ? x_channels : y_channels;
#pragma unroll 1
  for (int high = 0; high < channels; ++high)
#pragma unroll 1
    for (int low = 0; low <= high; ++low) {
      Sums<T> pair = {};
#pragma unroll 1
      for (int side = 0; side < (low == high ? 1 : 2); ++side) {
        const int c = side == 0 ? low : high, e = side == 0 ? high : low;
        if (c < x_channels && e < y_channels) add_term(p, layer, tile, c, e, shared, pair);
      }
#pragma unroll
      for (int r = 0; r < kSide; ++r)
#pragma unroll
        for (int q = 0; q < kSide; ++q) sum[r][q] += pair[r][q];
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kGramBlocks<T>) gram_kernel(const GramParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const GramTile tile{point_tile(p.x.part, p.x.count, blockIdx.x), point_tile(p.y.part, p.y.count, blockIdx.y)};
  const GramPart &x = p.x.part[tile.x.entry], &y = p.y.part[tile.y.entry];
  const bool same = p.symmetric && x.number == y.number;
  if (p.symmetric && (x.number < y.number || (same && tile.x.first < tile.y.first))) return;
  Sums<T> sum = {};
#pragma unroll 1
  for (int l = 0; l < p.layers; ++l) add_layer(p, p.layer[l], tile, shared, sum);
  for_each_sum(sum, [&](int r, int q, T value) {
    const int64_t i = tile.x.first + r, j = tile.y.first + q;
    if (r >= tile.x.count || q >= tile.y.count || (same && i < j)) return;
    const int64_t row = x.residual_row + i * x.stride, column = y.residual_row + j * y.stride;
    T& entry = p.out[row * p.pitch + column];
    const T total = p.add ? entry + value : value;
    entry = total;
    if (p.symmetric) p.out[column * p.pitch + row] = total;
  });
}

template <class T>
GramSide side_of(const Parts<T>& parts) {
  GramSide side{};
  side.count = parts.count;
  for (int e = 0; e < parts.count; ++e) {
    const Part<T>& part = parts.part[e];
    side.part[e] = {part.n,      part.a_row,    part.d_row,         part.residual_row, part.first_tile,
                    part.stride, part.channels, part.first_channel, part.number,       part.tile_points};
  }
  for (int c = 0; c < parts.channels; ++c) side.channel[c] = parts.channel[c];
  return side;
}

template <class T>
std::vector<GramLayer<T>> layers_of(const Gram<T>& p) {
  std::vector<GramLayer<T>> layers;
  for (int l = 0; l < p.x.layers; ++l) {
    const Layer<T>& layer = p.x.layer[l];
    const T weight = layer.weight_jacobian * layer.weight_jacobian, bias = layer.bias_jacobian * layer.bias_jacobian;
    if (layer.weight_jacobian == T(0) && layer.bias_jacobian == T(0)) continue;
    layers.push_back({p.x.A[l], p.x.D[l], p.y.A[l], p.y.D[l], layer.n_in, layer.n_out, weight, bias});
  }
  return layers;
}

template <class T>
int run(const Gram<T>& p, void* stream) {
  if (most_channels(p.x) > kMaxTableChannels || most_channels(p.y) > kMaxTableChannels) return cudaErrorInvalidValue;
  const auto a_tile = [](int) { return kTile; };
  const std::vector<Parts<T>> rows = tables_of(p.x, true, a_tile), columns = tables_of(p.y, true, a_tile);
  const std::vector<GramLayer<T>> layers = layers_of(p);
  GramParams<T> params{p.out, p.y.residual_rows, p.symmetric, false, 0, {}, {}, {}};
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < (p.symmetric ? i + 1 : columns.size()); ++j) {
      params.x = side_of(rows[i]);
      params.y = side_of(columns[j]);
      const int code = for_each_piece(static_cast<int>(layers.size()), [&](int first, int count) {
        params.add = first > 0;
        params.layers = count;
        for (int l = 0; l < count; ++l) params.layer[l] = layers[first + l];
        return launch(gram_kernel<T>, Grid{rows[i].tiles, columns[j].tiles}, Block{kThreads, 1, 1, kTileBytes<T>},
                      stream, params);
      });
      if (code != cudaSuccess) return code;
    }
  return cudaSuccess;
}

}  // namespace

int gram(const Gram<float>& p, void* stream) { return run(p, stream); }
int gram(const Gram<double>& p, void* stream) { return run(p, stream); }

}  // namespace ntkfast::cuda
