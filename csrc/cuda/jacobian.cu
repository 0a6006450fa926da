#include "jacobian.h"
#include "layers.cuh"
#include "parts.cuh"

// Residual row i of the Jacobian of one layer, with the scales s of its parameters:
//
//   J_i[W[m, n]] = s_W Σ_c D_i⁽ᶜ⁾[m] A_i⁽ᶜ⁾[n]          J_i[b[m]] = s_b D_i⁽⁰⁾[m]
//
// The columns of an output m stand together, b[m] last. A block takes some points and a run of columns of one layer;
// adjacent threads write adjacent columns. An entry is one sum over channels, wherever a call cuts the columns.

namespace ntkfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPoints = 4;            // of a block
constexpr int kColumnsOfAThread = 4;  // these and the points share the division that finds an output

template <class T>
struct FormedLayer {
  FactorLayer<T> factors;
  int64_t output;            // of the first column that is wanted
  unsigned input;            // the same column among those of this output
  unsigned inputs, outputs;  // columns of W[m, :]; of an output
  int count;                 // columns that are wanted
  int to;                    // where the first one stands in a row of J
};

template <class T>
struct JacobianParams {
  T* out;
  int64_t pitch;  // columns of out
  Parts<T> parts;
  FormedLayer<T> layer[kMaxLayers];
};
static_assert(sizeof(JacobianParams<double>) <= 4096, "kernels take at most 4 kB");

// The entry of point i for output m and the column n among those of m.
template <class T>
__device__ __forceinline__ T entry(const FormedLayer<T>& layer, const Part<T>& part, const uint16_t* channel, int64_t i,
                                   int64_t m, unsigned n) {
  const FactorLayer<T>& factors = layer.factors;
  const T* D = factors.D + (part.d_row + i) * factors.n_out + m;
  if (n == layer.inputs) return factors.bias_jacobian * *D;
  const T* A = factors.A + (part.a_row + i) * factors.n_in + n;
  const int64_t a_pitch = part.n * factors.n_in, d_pitch = part.n * factors.n_out;
  T sum = 0;
  for (int c = 0; c < part.channels; ++c) sum += D[c * d_pitch] * A[channel[c] * a_pitch];
  return factors.weight_jacobian * sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads) jacobian_kernel(const JacobianParams<T> p) {
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  const Part<T>& part = p.parts.part[tile.entry];
  const FormedLayer<T>& layer = p.layer[blockIdx.z];
  for (int q = 0; q < kColumnsOfAThread; ++q) {
    const int k = static_cast<int>((blockIdx.y * kColumnsOfAThread + q) * kThreads + threadIdx.x);
    if (k >= layer.count) return;
    const unsigned at = layer.input + static_cast<unsigned>(k);
    const int64_t m = layer.output + at / layer.outputs;
    T* column = p.out + layer.to + k;
    for (int r = 0; r < tile.count; ++r) {
      const int64_t i = tile.first + r;
      column[(part.residual_row + i * part.stride) * p.pitch] =
          entry(layer, part, p.parts.channel + part.first_channel, i, m, at % layer.outputs);
    }
  }
}

// What the columns from … from + count − 1 take of each layer.
template <class T>
std::vector<FormedLayer<T>> formed_layers(const Jacobian<T>& p) {
  std::vector<FormedLayer<T>> formed;
  int64_t start = 0;  // the layer's first column among all
  for (int l = 0; l < p.sweep.layers; ++l) {
    const Layer<T>& layer = p.sweep.layer[l];
    const int64_t each = columns_of_output(layer), columns = p.use_explicit[l] ? layer.n_out * each : 0;
    const int64_t first = p.from > start ? p.from - start : 0;
    const int64_t end = p.from + p.count < start + columns ? p.from + p.count - start : columns;
    if (first < end)
      formed.push_back({factor_layer(p.sweep, l), first / each, static_cast<unsigned>(first % each),
                        static_cast<unsigned>(layer.weight_jacobian != T(0) ? layer.n_in : 0),
                        static_cast<unsigned>(each), static_cast<int>(end - first),
                        static_cast<int>(start + first - p.from)});
    start += columns;
  }
  return formed;
}

template <class T>
int run(const Jacobian<T>& p, void* stream) {
  if (most_channels(p.sweep) > kMaxTableChannels || p.count > kMostColumns) return cudaErrorInvalidValue;
  const std::vector<FormedLayer<T>> layers = formed_layers(p);
  JacobianParams<T> params{p.out, p.count, {}, {}};
  for (const Parts<T>& parts : tables_of(p.sweep, true, [](int) { return kPoints; })) {
    params.parts = parts;
    const int code = for_each_piece(static_cast<int>(layers.size()), [&](int first, int count) {
      int64_t most = 0;
      for (int l = 0; l < count; ++l) {
        params.layer[l] = layers[first + l];
        most = params.layer[l].count > most ? params.layer[l].count : most;
      }
      const Grid grid{parts.tiles, blocks_for(most, kColumnsOfAThread * kThreads), count};
      return launch(jacobian_kernel<T>, grid, Block{kThreads}, stream, params);
    });
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

int jacobian(const Jacobian<float>& p, void* stream) { return run(p, stream); }
int jacobian(const Jacobian<double>& p, void* stream) { return run(p, stream); }

}  // namespace ntkfast::cuda
