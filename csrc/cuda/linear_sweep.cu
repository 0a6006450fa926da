#include <vector>

#include "factor_diag.h"
#include "jet_backward.h"
#include "jet_forward.h"
#include "linear_sweep.h"
#include "seeds.cuh"
#include "vjp.h"

// With u the output channels of a point, s its seeds and y its offset,
//
//   r = Σ_c s_c u_c − y        x = pull ∘ r        Jᵀx from the factors

namespace ntkfast::cuda {
namespace {

constexpr int kPoints = 64;  // of a block, a thread each

template <class T>
struct RowsParams {
  const T *out, *offset, *pull;
  T *residual, *x;
  int64_t outputs;
  Parts<T> parts;
  SeedTable<T> seeds;
};
static_assert(sizeof(RowsParams<double>) <= 4096, "kernels take at most 4 kB");

template <class T>
__global__ void __launch_bounds__(kPoints) rows_kernel(const RowsParams<T> p) {
  const PointTile tile = point_tile(p.parts.part, p.parts.count, blockIdx.x);
  if (static_cast<int>(threadIdx.x) >= tile.count) return;
  const Part<T>& part = p.parts.part[tile.entry];
  const int64_t i = tile.first + threadIdx.x;
  const uint16_t* channel = p.parts.channel + part.first_channel;
  const core::Seeds<T>& seed = p.seeds.of[tile.entry];
  T r = 0;
  for (int c = 0; c < part.channels; ++c)
    for (int64_t o = 0; o < p.outputs; ++o)
      r += seed(c, i, o) * p.out[(part.a_row + channel[c] * part.n + i) * p.outputs + o];
  const int64_t row = part.residual_row + i * part.stride;
  if (p.offset != nullptr) r -= p.offset[row];
  p.residual[row] = r;
  p.x[row] = p.pull == nullptr ? T(0) : p.pull[row] * r;
}

template <class T>
int rows(const LinearSweep<T>& p, const Sweep<T>& sweep, T* x, void* stream) {
  RowsParams<T> params{sweep.out, p.offset, p.pull, p.residual, x, sweep.layer[sweep.layers - 1].n_out, {}, {}};
  for (const Parts<T>& parts : tables_of(sweep, true, [](int) { return kPoints; })) {
    params.parts = parts;
    params.seeds = seed_table(sweep, parts);
    const int code = launch(rows_kernel<T>, Grid{parts.tiles}, Block{kPoints}, stream, params);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

// The sweep with its stacks in the workspace, then x, then what vjp needs.
template <class T>
class Workspace {
 public:
  Workspace(const LinearSweep<T>& p, T* memory) : sweep(p.sweep), memory_(memory) {
    const int L = sweep.layers;
    for (int l = 0; l < L; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      A_.push_back(p.sweep.A == nullptr ? take(sweep.rows * layer.n_in) : p.sweep.A[l]);
      D_.push_back(p.sweep.D == nullptr ? take(sweep.cotangent_rows * layer.n_out) : p.sweep.D[l]);
      Z_.push_back(layer.keeps_stash ? take(sweep.rows * layer.n_out) : nullptr);
    }
    sweep.A = A_.data();
    sweep.Z = Z_.data();
    sweep.D = D_.data();
    sweep.out = take(sweep.rows * sweep.layer[L - 1].n_out);
    x = take(sweep.residual_rows);
    gradient = {sweep, x, p.weight, p.bias};
    rest = take(vjp_workspace(gradient));
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  int64_t size() const { return size_; }

  Sweep<T> sweep;
  Vjp<T> gradient;
  T *x, *rest;

 private:
  T* take(int64_t count) {
    T* first = memory_ == nullptr ? nullptr : memory_ + size_;
    size_ += count;
    return first;
  }

  T* memory_;
  int64_t size_ = 0;
  std::vector<T*> A_, Z_, D_;
};

template <class T>
int run(const LinearSweep<T>& p, T* memory, void* stream) {
  if (most_channels(p.sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  const Workspace<T> at(p, memory);
  int code = jet_forward(at.sweep, nullptr, stream);
  if (code == cudaSuccess) code = rows(p, at.sweep, at.x, stream);
  if (code == cudaSuccess) code = jet_backward(at.sweep, stream);
  if (code == cudaSuccess && p.sweep.diag != nullptr) code = factor_diag(at.sweep, stream);
  return code == cudaSuccess ? vjp(at.gradient, at.rest, stream) : code;
}

}  // namespace

int64_t linear_sweep_workspace(const LinearSweep<float>& p) { return Workspace<float>(p, nullptr).size(); }
int64_t linear_sweep_workspace(const LinearSweep<double>& p) { return Workspace<double>(p, nullptr).size(); }
int linear_sweep(const LinearSweep<float>& p, float* workspace, void* stream) { return run(p, workspace, stream); }
int linear_sweep(const LinearSweep<double>& p, double* workspace, void* stream) { return run(p, workspace, stream); }

}  // namespace ntkfast::cuda
