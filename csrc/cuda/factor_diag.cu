#include "../core/channel_pairs.h"
#include "../core/layer_part.h"
#include "factor_diag.h"
#include "layers.cuh"
#include "parts.cuh"
#include "warp.cuh"

// One layer and one residual row a warp:
//
//   K_ii = Σ_cc' ⟨D_i⁽ᶜ⁾, D_i⁽ᶜ'⁾⟩ ⟨A_i⁽ᶜ⁾, A_i⁽ᶜ'⁾⟩ + ‖D_i⁽⁰⁾‖²
//
// A lane's share of an inner product is summed in T, the lanes and everything after them in float64.

namespace ntkfast::cuda {
namespace {

constexpr int kWarps = 8;

template <class T>
struct FactorDiagParams {
  double* diag;  // (layers, residual_rows)
  int64_t residual_rows;
  Parts<T> parts;
  FactorLayer<T> layer[kMaxLayers];
};
static_assert(sizeof(FactorDiagParams<double>) <= 4096, "kernels take at most 4 kB");

template <class T>
__device__ __forceinline__ double inner(const T* x, const T* y, int64_t width) {
  T sum = 0;
  for (int64_t k = lane(); k < width; k += kWarpLanes) sum += x[k] * y[k];
  return warp_sum(static_cast<double>(sum));
}

template <class T>
__device__ __forceinline__ double row_of_layer(const FactorLayer<T>& layer, const Part<T>& part,
                                               const uint16_t* channel, int64_t i) {
  const T* A = layer.A + (part.a_row + i) * layer.n_in;
  const T* D = layer.D + (part.d_row + i) * layer.n_out;
  const int64_t a_pitch = part.n * layer.n_in, d_pitch = part.n * layer.n_out;
  const core::LayerPart scaled(layer.weight_jacobian, layer.bias_jacobian);
  const int channels = scaled.weight != 0 ? part.channels : 0;
  double of_weight = 0;
  for (int c = 0; c < channels; ++c)
    for (int e = 0; e <= c; ++e)
      of_weight += core::times_of(c, e) * inner(D + c * d_pitch, D + e * d_pitch, layer.n_out) *
                   inner(A + channel[c] * a_pitch, A + channel[e] * a_pitch, layer.n_in);
  return core::squared_norm(scaled(of_weight, scaled.bias != 0 ? inner(D, D, layer.n_out) : 0.0));
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarpLanes) factor_diag_kernel(const FactorDiagParams<T> p) {
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  if (warp() >= tile.count) return;
  const Part<T>& part = p.parts.part[tile.entry];
  const FactorLayer<T>& layer = p.layer[blockIdx.y];
  const int64_t i = tile.first + warp();
  const double total = row_of_layer(layer, part, p.parts.channel + part.first_channel, i);
  if (lane() == 0) p.diag[layer.number * p.residual_rows + part.residual_row + i * part.stride] = total;
}

template <class T>
int run(const Sweep<T>& sweep, void* stream) {
  if (most_channels(sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  FactorDiagParams<T> p{sweep.diag, sweep.residual_rows, {}, {}};
  for (const Parts<T>& parts : tables_of(sweep, true, [](int) { return kWarps; })) {
    p.parts = parts;
    const int code = for_each_piece(sweep.layers, [&](int first, int count) {
      for (int l = 0; l < count; ++l) p.layer[l] = factor_layer(sweep, first + l);
      return launch(factor_diag_kernel<T>, Grid{parts.tiles, count}, Block{kWarps * kWarpLanes}, stream, p);
    });
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

int factor_diag(const Sweep<float>& sweep, void* stream) { return run(sweep, stream); }
int factor_diag(const Sweep<double>& sweep, void* stream) { return run(sweep, stream); }

}  // namespace ntkfast::cuda
