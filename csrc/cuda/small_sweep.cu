#include "../core/layer_part.h"
#include "neuron.cuh"
#include "parts.cuh"
#include "small_sweep.h"
#include "small_table.cuh"
#include "small_tile.cuh"

// A tile of points, from layer to layer and back:
//
//   Z_l = A_l W_lᵀ (+ b on the value channel)      A_{l+1} = push_forward(Z_l)
//   D_L = seeds, pulled back                       D_{l−1} = pull_back(D_l W_l, Z_{l−1})
//   K_ii of layer l = Σ_cc' ⟨D_i⁽ᶜ⁾, D_i⁽ᶜ'⁾⟩ ⟨A_i⁽ᶜ⁾, A_i⁽ᶜ'⁾⟩ + ‖D_i⁽⁰⁾‖²

namespace ntkfast::cuda {
namespace {

// A block's tile. Between its sweeps work and weight are free: all threads have met since they were read.
template <class T>
struct SmallTile {
  const SmallParams<T>& p;
  const SmallGroup<T>& group;
  int64_t first;
  int count;
  T* shared;

  __device__ __forceinline__ SmallJet<T> work() const { return {shared + p.at.work, count, p.at.pitch}; }
  __device__ __forceinline__ T* weight() const { return shared + p.at.weight; }
  __device__ __forceinline__ double* a_products(int l) const {
    return reinterpret_cast<double*>(shared) + l * p.at.products;
  }
  __device__ __forceinline__ double* terms() const { return reinterpret_cast<double*>(shared + p.at.terms); }
  __device__ __forceinline__ int channels() const { return 1 + group.directions + group.collapsed; }
  // Where channel c of point i begins in a stack, of the group or, with its first row, of a component.
  __device__ __forceinline__ int64_t in_stack(int64_t row, int c, int i) const { return row + c * group.n + first + i; }

  // A_0: the points, then β.
  __device__ __forceinline__ void load_inputs() const {
    const SmallLayer<T>& bottom = p.layer[0];
    const int d = static_cast<int>(bottom.layer.n_in);
    Entries(count, d)([&](int i, int j) {
      const T* beta = group.beta + (first + i) * group.beta_stride + j;
      for (int c = 0; c < channels(); ++c) {
        const T value = c == 0 ? group.points[(first + i) * d + j] : beta[(c - 1) * d];
        work()(c, i, j) = value;
        if (bottom.A != nullptr) bottom.A[in_stack(group.row, c, i) * d + j] = value;
      }
    });
  }

  // to = work · weight, scaled, and + bias_of(column) on the first `value_rows` rows. Between the two all threads meet:
  // the factors have been read, and what was written beside them is there.
  template <int Side, class BiasOf>
  __device__ __forceinline__ void multiply_rows(int depth, int columns, int rows, T scale, T* to, int value_rows,
                                                const BiasOf& bias_of) const {
    ThreadProduct<T, Side> product;
    product.multiply(work().at, p.at.pitch, weight(), rows, columns, depth);
    __syncthreads();
    product.put(to, p.at.pitch, scale, rows, columns, value_rows, bias_of);
  }
  template <class BiasOf>
  __device__ __forceinline__ void multiply(int depth, int columns, int rows, T scale, T* to, int value_rows,
                                           const BiasOf& bias_of) const {
    if (p.rows == 8 * kRowGroups) multiply_rows<8>(depth, columns, rows, scale, to, value_rows, bias_of);
    else if (p.rows == 4 * kRowGroups) multiply_rows<4>(depth, columns, rows, scale, to, value_rows, bias_of);
    else multiply_rows<2>(depth, columns, rows, scale, to, value_rows, bias_of);
  }

  // A_{l+1} from Z_l, which stands in the stash or, where there is none, in its own place.
  __device__ __forceinline__ void push(int l) const {
    const SmallLayer<T>& at = p.layer[l];
    const int width = static_cast<int>(at.layer.n_out);
    const SmallJet<T> z{shared + p.at.stash[l], count, p.at.pitch};
    const Entries entries(count, width);
    T* const above = l + 1 < p.layers ? p.layer[l + 1].A : p.out;
    entries([&](int i, int j) {
      push_neuron(
          at.layer.activation, at.layer.activation_params, group.directions, group.collapsed,
          group.omega + (first + i) * group.omega_stride, [&](int c) { return z(c, i, j); },
          [&](int c, T value) {
            if (z.at != work().at) z(c, i, j) = value;
            if (at.Z != nullptr) at.Z[in_stack(group.row, c, i) * width + j] = value;
          },
          [&](int c, T value) {
            work()(c, i, j) = value;
            if (above != nullptr) above[in_stack(group.row, c, i) * width + j] = value;
          });
    });
  }

  // ⟨A_l⁽ᶜ⁾, A_l⁽ᶜ'⁾⟩ of the tile, where the diagonal of layer l asks for them.
  __device__ __forceinline__ void keep_a_products(int l) const {
    const Layer<T>& layer = p.layer[l].layer;
    if (p.task != Task::diag || l < p.first_active || layer.weight_jacobian == T(0)) return;
    double* to = a_products(l);
    inner_products(work(), channels(), static_cast<int>(layer.n_in),
                   [&](int c, int e, int i, double value) { to[core::place_of(c, e) * count + i] = value; });
  }

  // The diagonal asks of a last layer without activation for A alone: it has no product then.
  __device__ __forceinline__ void forward() const {
    load_inputs();
#pragma unroll 1
    for (int l = 0; l < p.layers; ++l) {
      const Layer<T>& layer = p.layer[l].layer;
      const bool has_product = l < p.forward_layers;
      if (has_product) load_weight<true>(layer, weight());
      __syncthreads();
      keep_a_products(l);
      if (!has_product) break;
      multiply(static_cast<int>(layer.n_in), static_cast<int>(layer.n_out), channels() * count, layer.weight_scale,
               shared + p.at.stash[l], count,
               [&](int j) { return layer.bias == nullptr ? T(0) : __ldg(layer.bias + j) * layer.bias_scale; });
      __syncthreads();  // all channels of Z are there
      push(l);
    }
    __syncthreads();  // A is there, or has been read
  }

  // D_l from the cotangents on its activation's outputs, in place.
  __device__ __forceinline__ void pull(int l, const SmallComponent<T>& component) const {
    const SmallLayer<T>& at = p.layer[l];
    const int width = static_cast<int>(at.layer.n_out);
    const Entries entries(count, width);
    const bool stored = p.task == Task::backward;
    const auto write = [&](int c, int i, int j, T value) {
      work()(c, i, j) = value;
      if (at.D != nullptr) at.D[in_stack(component.row, c, i) * width + j] = value;
    };
    if (stored ? at.Z == nullptr : p.at.stash[l] == p.at.work) {
      entries([&](int i, int j) {
        for (int c = 0; c < component.channels; ++c) write(c, i, j, work()(c, i, j));
      });
      return;
    }
    const ChannelMap map{p.channel + component.first_channel, component.directions, component.collapsed,
                         group.directions};
    const T* stash = stored ? at.Z + (group.row + first) * width : shared + p.at.stash[l];
    const int64_t channel = stored ? group.n * width : count;
    const int point = stored ? width : 1, feature = stored ? 1 : p.at.pitch;
    entries([&](int i, int j) {
      const T* neuron = stash + i * point + j * feature;
      pull_neuron(
          at.layer.activation, at.layer.activation_params, map, group.omega + (first + i) * group.omega_stride,
          [&](int c) { return neuron[c * channel]; }, [&](int c) { return work()(c, i, j); },
          [&](int c, T value) { write(c, i, j, value); });
    });
  }

  // What each pair of channels adds to the diagonal of layer l.
  __device__ __forceinline__ void keep_terms(int l, const SmallComponent<T>& component) const {
    const Layer<T>& layer = p.layer[l].layer;
    const core::LayerPart scaled(layer);
    const uint16_t* channel = p.channel + component.first_channel;
    const double* products = a_products(l);
    double* to = terms();
    inner_products(work(), terms_channels(l, component), static_cast<int>(layer.n_out),
                   [&](int c, int e, int i, double value) {
                     const int x = channel[c], y = channel[e], high = x > y ? x : y, low = x > y ? y : x;
                     double of_weight = 0;
                     if (scaled.weight != 0)
                       of_weight = core::times_of(c, e) * value * products[core::place_of(high, low) * count + i];
                     to[core::place_of(c, e) * count + i] = scaled(of_weight, c == 0 ? value : 0.0);
                   });
  }

  // Channels whose pairs make the diagonal of layer l: of a bias alone the value.
  __device__ __forceinline__ int terms_channels(int l, const SmallComponent<T>& component) const {
    const Layer<T>& layer = p.layer[l].layer;
    if (layer.weight_jacobian != T(0)) return component.channels;
    return layer.bias_jacobian != T(0) ? 1 : 0;
  }

  __device__ __forceinline__ void write_diag(int l, const SmallComponent<T>& component) const {
    const int pairs = core::pairs_of(terms_channels(l, component));
    double* to = p.diag + l * p.residual_rows + component.residual_row + first * group.stride;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      double total = 0;
      for (int pair = 0; pair < pairs; ++pair) total += terms()[pair * count + i];
      to[int64_t(i) * group.stride] = core::squared_norm(total);
    }
  }

  __device__ __forceinline__ void load_seeds(const SmallComponent<T>& component) const {
    Entries(count, static_cast<int>(p.layer[p.layers - 1].layer.n_out))([&](int i, int j) {
      for (int c = 0; c < component.channels; ++c) work()(c, i, j) = component.seed(c, first + i, j);
    });
  }

  __device__ __forceinline__ void backward(const SmallComponent<T>& component) const {
    const bool diag = p.task == Task::diag;
    load_seeds(component);  // a thread's neurons are those that it pulls: no barrier between
#pragma unroll 1
    for (int l = p.layers - 1;; --l) {
      const Layer<T>& layer = p.layer[l].layer;
      const bool has_product = l > p.first_active;
      pull(l, component);
      if (has_product) load_weight<false>(layer, weight());
      __syncthreads();
      if (diag) keep_terms(l, component);
      if (!has_product) break;
      multiply(static_cast<int>(layer.n_out), static_cast<int>(layer.n_in), component.channels * count,
               layer.weight_scale, work().at, 0, [](int) { return T(0); });
      if (diag) write_diag(l, component);
      __syncthreads();  // all channels of D W are there, the terms have been read
    }
    if (!diag) return;
    __syncthreads();
    for (int l = p.first_active; l >= 0; --l) write_diag(l, component);
  }
};

// Blocks that share a multiprocessor: in float64 shared memory mostly leaves room for one, and 128 registers a thread
// would spill.
template <class T>
constexpr int kSmallBlocks = sizeof(T) == 4 ? 2 : 1;

template <class T>
__global__ void __launch_bounds__(kThreads, kSmallBlocks<T>) small_kernel(const SmallParams<T> p) {
  NTKFAST_DYNAMIC_SHARED(T, shared);
  const PointTile tile = point_tile(p.group, p.count, blockIdx.x);
  const SmallGroup<T>& group = p.group[tile.entry];
  const SmallTile<T> block{p, group, tile.first, tile.count, shared};
  if (p.task != Task::backward) block.forward();
  for (int j = 0; j < group.components; ++j) block.backward(p.component[group.first_component + j]);
}

template <class T>
int run(const Sweep<T>& sweep, Task task, void* stream) {
  const int rows = tile_rows_of(sweep, task);
  for (const SmallParams<T>& p : small_tables(sweep, task, rows)) {
    const int code =
        launch(small_kernel<T>, Grid{p.tiles}, Block{kThreads, 1, 1, p.at.elements * sizeof(T)}, stream, p);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

int small_tile_rows(const Sweep<float>& sweep, Task task) { return tile_rows_of(sweep, task); }
int small_tile_rows(const Sweep<double>& sweep, Task task) { return tile_rows_of(sweep, task); }
int small_sweep(const Sweep<float>& sweep, Task task, void* stream) { return run(sweep, task, stream); }
int small_sweep(const Sweep<double>& sweep, Task task, void* stream) { return run(sweep, task, stream); }

}  // namespace ntkfast::cuda
