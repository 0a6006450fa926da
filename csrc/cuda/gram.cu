#include "gram.h"
#include "jacobian.h"
#include "layers.cuh"
#include "parts.cuh"
#include "tile.cuh"

// A tile of K, 64 points of one component against 64 of another, by one block. Layer by layer either
//
//   structured   K += Σ_cc' (D⁽ᶜ⁾D'⁽ᶜ'⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᶜ'⁾ᵀ) + D⁽⁰⁾D'⁽⁰⁾ᵀ
//   explicit     K += J J'ᵀ with the columns of J that jacobian.cu has formed
//
// All sums stay in registers: the products of a pair of channels, where they are multiplied, and the entry's own over
// columns, channels and layers. K is written once; with more columns than the workspace holds, or more layers than a
// launch takes, once a launch. The next launch then goes on from K itself, so that an entry is one sum in one order,
// explicit layers first, whatever the chunk. Where K is summed over components, each of them is a launch. A symmetric K
// computes the tiles on and below its diagonal, and its last launch writes every entry to both places.

namespace ntkfast::cuda {
namespace {

template <class T>
using Sums = T[kSide][kSide];

// Structured layers keep four tiles of sums alive at once: in float64 they take the registers of a whole
// multiprocessor.
// A launch of columns alone is a plain product, and leaves room for another block.
template <class T, bool kStructured>
constexpr int kGramBlocks = kStructured && sizeof(T) == 8 ? 1 : kTileBlocks;

// One component of one side. Channel c stands in rows a_row + channel(c)·n of A and d_row + c·n of D; point i is row
// residual_row + i·stride of K and of J.
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
  bool symmetric;
  bool add;     // to what an earlier launch gave
  bool mirror;  // nothing is added any more: write the other triangle too
  int layers;
  int columns;           // of J and other_J, point-major
  int64_t first_y_tile;  // of this launch
  const T *J, *other_J;  // (N, columns), (M, columns)
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

// The same for columns of J, whose rows are those of K: the points of a component stand `stride` rows apart.
template <class T>
__device__ __forceinline__ void add_columns(const GramParams<T>& p, const GramTile& tile, T* shared, Sums<T>& sum) {
  const auto rows = [&p](const T* J, const GramPart& part, const PointTile& points) {
    const int64_t pitch = p.columns;
    return AlongDepth<T>{J + (part.residual_row + points.first * part.stride) * pitch, part.stride * pitch, p.columns,
                         points.count};
  };
  add_product(rows(p.J, p.x.part[tile.x.entry], tile.x), rows(p.other_J, p.y.part[tile.y.entry], tile.y), p.columns,
              shared, sum);
}

// A product that no sum is contracted with.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }

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
    for (int q = 0; q < kSide; ++q) term[r][q] += product(layer.weight * inputs[r][q] + bias, cotangents[r][q]);
}

// The terms (c, e) and (e, c) are added to each other first, both rounded: the sum is then the same, bit for bit, with
// x and y exchanged.
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

// Calls body(sum, row of K, column of K) for this thread's entries that the tile computes.
template <class T, class Body>
__device__ __forceinline__ void for_each_entry(const GramParams<T>& p, const GramTile& tile, Sums<T>& sum,
                                               const Body& body) {
  const GramPart &x = p.x.part[tile.x.entry], &y = p.y.part[tile.y.entry];
  const bool same = p.symmetric && x.number == y.number;
  for_each_sum(sum, [&](int r, int q, T& value) {
    const int64_t i = tile.x.first + r, j = tile.y.first + q;
    if (r >= tile.x.count || q >= tile.y.count || (same && i < j)) return;
    body(value, x.residual_row + i * x.stride, y.residual_row + j * y.stride);
  });
}

template <class T, bool kStructured>
__global__ void __launch_bounds__(kThreads, kGramBlocks<T, kStructured>) gram_kernel(const GramParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const GramTile tile{point_tile(p.x.part, p.x.count, blockIdx.x),
                      point_tile(p.y.part, p.y.count, p.first_y_tile + blockIdx.y)};
  const GramPart &x = p.x.part[tile.x.entry], &y = p.y.part[tile.y.entry];
  if (p.symmetric && (x.number < y.number || (x.number == y.number && tile.x.first < tile.y.first))) return;
  Sums<T> sum = {};
  if (p.add)
    for_each_entry(p, tile, sum, [&](T& value, int64_t row, int64_t column) { value = p.out[row * p.pitch + column]; });
  if (p.columns > 0) add_columns(p, tile, shared, sum);
  if constexpr (kStructured) {
#pragma unroll 1
    for (int l = 0; l < p.layers; ++l) add_layer(p, p.layer[l], tile, shared, sum);
  }
  for_each_entry(p, tile, sum, [&](T value, int64_t row, int64_t column) {
    p.out[row * p.pitch + column] = value;
    if (p.mirror) p.out[column * p.pitch + row] = value;
  });
}

template <class T>
GramSide side_of(const Parts<T>& parts, int together) {
  GramSide side{};
  side.count = parts.count;
  for (int e = 0; e < parts.count; ++e) {
    const Part<T>& part = parts.part[e];
    side.part[e] = {part.n,          part.a_row,
                    part.d_row,      part.residual_row / together,
                    part.first_tile, part.stride / together,
                    part.channels,   part.first_channel,
                    part.number,     part.tile_points};
  }
  for (int c = 0; c < parts.channels; ++c) side.channel[c] = parts.channel[c];
  return side;
}

template <class T>
std::vector<GramLayer<T>> structured_layers(const Gram<T>& p) {
  std::vector<GramLayer<T>> layers;
  for (int l = 0; l < p.x.layers; ++l) {
    const Layer<T>& layer = p.x.layer[l];
    if (p.use_explicit[l] || !layer.active) continue;
    const T weight = layer.weight_jacobian * layer.weight_jacobian, bias = layer.bias_jacobian * layer.bias_jacobian;
    layers.push_back({p.x.A[l], p.x.D[l], p.y.A[l], p.y.D[l], layer.n_in, layer.n_out, weight, bias});
  }
  return layers;
}

// Columns of J that are formed at a time.
template <class T>
int64_t chunk_of(const Gram<T>& p) {
  const int64_t columns = jacobian_columns(p.x, p.use_explicit), chunk = p.chunk < columns ? p.chunk : columns;
  return chunk < kMostColumns ? chunk : kMostColumns;
}

template <class T>
int64_t workspace_of(const Gram<T>& p) {
  return chunk_of(p) * (p.x.residual_rows + (p.symmetric ? 0 : p.y.residual_rows));
}

template <class T>
struct Plan {
  std::vector<Parts<T>> rows, columns;
  std::vector<GramLayer<T>> layers;  // structured
  int together;
};

// One component of each group, by its number there, or kAllComponents.
template <class T>
Plan<T> plan_of(const Gram<T>& p, int only) {
  const auto a_tile = [](int) { return kTile; };
  return {tables_of(p.x, true, a_tile, only), tables_of(p.y, true, a_tile, only), structured_layers(p), p.together};
}

// Tiles of y beyond what a grid holds have launches of their own.
template <class T>
int launch_tiles(GramParams<T> params, int64_t x_tiles, int64_t y_tiles, void* stream) {
  const auto kernel = params.layers > 0 ? gram_kernel<T, true> : gram_kernel<T, false>;
  for (int64_t first = 0; first < y_tiles; first += kMaxGridYZ) {
    params.first_y_tile = first;
    const int64_t count = y_tiles - first < kMaxGridYZ ? y_tiles - first : kMaxGridYZ;
    const int code = launch(kernel, Grid{x_tiles, count}, Block{kThreads, 1, 1, kTileBytes<T>}, stream, params);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

// Adds the columns of `params`, and if `structured` those layers, to all of K; the last one of all mirrors it.
template <class T>
int add_chunk(const Plan<T>& plan, GramParams<T> params, bool structured, bool last, void* stream) {
  const int layers = structured ? static_cast<int>(plan.layers.size()) : 0, columns = params.columns;
  const bool add = params.add;
  for (size_t i = 0; i < plan.rows.size(); ++i)
    for (size_t j = 0; j < (params.symmetric ? i + 1 : plan.columns.size()); ++j) {
      params.x = side_of(plan.rows[i], plan.together);
      params.y = side_of(plan.columns[j], plan.together);
      const int code = for_each_piece(layers, [&](int first, int count) {
        params.add = add || first > 0;
        params.mirror = params.symmetric && last && first + count == layers;
        params.columns = first == 0 ? columns : 0;
        params.layers = count;
        for (int l = 0; l < count; ++l) params.layer[l] = plan.layers[first + l];
        return launch_tiles(params, plan.rows[i].tiles, plan.columns[j].tiles, stream);
      });
      if (code != cudaSuccess) return code;
    }
  return cudaSuccess;
}

// K of all components, chunk by chunk of the columns of J.
template <class T>
int run_by_columns(const Gram<T>& p, GramParams<T> params, T* workspace, void* stream) {
  const Plan<T> plan = plan_of(p, kAllComponents);
  const int64_t columns = jacobian_columns(p.x, p.use_explicit), chunk = chunk_of(p);
  T* other = p.symmetric ? workspace : workspace + chunk * p.x.residual_rows;
  params.J = workspace;
  params.other_J = other;
  int64_t from = 0;
  do {
    const int64_t count = columns - from < chunk ? columns - from : chunk;
    int code = jacobian(Jacobian<T>{p.x, p.use_explicit, from, count, workspace}, stream);
    if (code == cudaSuccess && !p.symmetric)
      code = jacobian(Jacobian<T>{p.y, p.use_explicit, from, count, other}, stream);
    params.add = from > 0;
    params.columns = static_cast<int>(count);
    from += count;
    if (code == cudaSuccess) code = add_chunk(plan, params, from == columns, from == columns, stream);
    if (code != cudaSuccess) return code;
  } while (from < columns);
  return cudaSuccess;
}

// K summed over components, which have structured layers alone.
template <class T>
int run_by_components(const Gram<T>& p, GramParams<T> params, void* stream) {
  for (int j = 0; j < p.together; ++j) {
    params.add = j > 0;
    const int code = add_chunk(plan_of(p, j), params, true, j + 1 == p.together, stream);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

template <class T>
int run(const Gram<T>& p, T* workspace, void* stream) {
  if (most_channels(p.x) > kMaxTableChannels || most_channels(p.y) > kMaxTableChannels) return cudaErrorInvalidValue;
  GramParams<T> params{};
  params.out = p.out;
  params.pitch = p.y.residual_rows / p.together;
  params.symmetric = p.symmetric;
  return p.together > 1 ? run_by_components(p, params, stream) : run_by_columns(p, params, workspace, stream);
}

}  // namespace

int64_t gram_workspace(const Gram<float>& p) { return workspace_of(p); }
int64_t gram_workspace(const Gram<double>& p) { return workspace_of(p); }
int gram(const Gram<float>& p, float* workspace, void* stream) { return run(p, workspace, stream); }
int gram(const Gram<double>& p, double* workspace, void* stream) { return run(p, workspace, stream); }

}  // namespace ntkfast::cuda
