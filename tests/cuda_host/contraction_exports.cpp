// csrc/cuda/{factor_diag,vjp,jvp,gram,diag,linear_sweep}.h for ctypes.
#include <limits>

#include "../../csrc/cuda/diag.h"
#include "../../csrc/cuda/factor_diag.h"
#include "../../csrc/cuda/gram.h"
#include "../../csrc/cuda/jvp.h"
#include "../../csrc/cuda/linear_sweep.h"
#include "../../csrc/cuda/vjp.h"
#include "host_sweep.h"

namespace {

using cuda_host::ChainArrays;
using cuda_host::GroupArrays;
using cuda_host::HostSweep;

// Memory as an operator finds it: unwritten.
template <class T>
std::vector<T> workspace_of(int64_t size) {
  return std::vector<T>(size, std::numeric_limits<T>::quiet_NaN());
}

template <class T>
int diag(const ChainArrays& chain, const GroupArrays& groups, int64_t tile_rows, double* out) {
  HostSweep<T> args(chain, groups);
  args.sweep.tile_rows = tile_rows;
  args.sweep.diag = out;
  auto workspace = workspace_of<T>(ntkfast::cuda::diag_workspace(args.sweep));
  return ntkfast::cuda::diag(args.sweep, workspace.data(), nullptr);
}

template <class T>
int64_t diag_workspace(const ChainArrays& chain, const GroupArrays& groups) {
  return ntkfast::cuda::diag_workspace(HostSweep<T>(chain, groups).sweep);
}

template <class T>
int factor_diag(const ChainArrays& chain, const GroupArrays& groups, void* A, void* D, double* out) {
  HostSweep<T> args(chain, groups);
  args.set_stacks(A, nullptr, D);
  args.sweep.diag = out;
  return ntkfast::cuda::factor_diag(args.sweep, nullptr);
}

template <class T, class Pointer>
std::vector<Pointer> every_second(const ChainArrays& chain, void* const* pointers, int first) {
  std::vector<Pointer> found;
  for (int l = 0; l < chain.layers; ++l) found.push_back(static_cast<Pointer>(pointers[2 * l + first]));
  return found;
}

template <class T>
int vjp(const ChainArrays& chain, const GroupArrays& groups, void* A, void* D, const void* x, void* const* grads) {
  HostSweep<T> args(chain, groups);
  args.set_stacks(A, nullptr, D);
  const auto weight = every_second<T, T*>(chain, grads, 0), bias = every_second<T, T*>(chain, grads, 1);
  const ntkfast::Vjp<T> p{args.sweep, static_cast<const T*>(x), weight.data(), bias.data()};
  auto workspace = workspace_of<T>(ntkfast::cuda::vjp_workspace(p));
  return ntkfast::cuda::vjp(p, workspace.data(), nullptr);
}

template <class T>
int linear_sweep(const ChainArrays& chain, const GroupArrays& groups, const void* offset, const void* pull, void* rows,
                 void* const* grads, double* diag, void* A, void* D) {
  HostSweep<T> args(chain, groups);
  args.set_stacks(A, nullptr, D);
  if (A == nullptr) args.sweep.A = nullptr;
  if (D == nullptr) args.sweep.D = nullptr;
  args.sweep.diag = diag;
  const auto weight = every_second<T, T*>(chain, grads, 0), bias = every_second<T, T*>(chain, grads, 1);
  const ntkfast::LinearSweep<T> p{
      args.sweep, static_cast<const T*>(offset), static_cast<const T*>(pull), static_cast<T*>(rows), weight.data(),
      bias.data()};
  auto workspace = workspace_of<T>(ntkfast::cuda::linear_sweep_workspace(p));
  return ntkfast::cuda::linear_sweep(p, workspace.data(), nullptr);
}

template <class T>
int jvp(const ChainArrays& chain, const GroupArrays& groups, void* A, void* D, void* const* tangents, double* out) {
  HostSweep<T> args(chain, groups);
  args.set_stacks(A, nullptr, D);
  const auto weight = every_second<T, const T*>(chain, tangents, 0),
             bias = every_second<T, const T*>(chain, tangents, 1);
  const ntkfast::Jvp<T> p{args.sweep, weight.data(), bias.data(), out};
  auto workspace = workspace_of<double>(ntkfast::cuda::jvp_workspace(p));
  return ntkfast::cuda::jvp(p, workspace.data(), nullptr);
}

template <class T>
int gram(const ChainArrays& chain, const GroupArrays& groups, void* A, void* D, const GroupArrays& other, void* other_A,
         void* other_D, bool symmetric, const bool* use_explicit, int64_t chunk, int together, void* out) {
  HostSweep<T> x(chain, groups), y(chain, other);
  x.set_stacks(A, nullptr, D);
  y.set_stacks(other_A, nullptr, other_D);
  const ntkfast::Gram<T> p{x.sweep, y.sweep, symmetric, use_explicit, chunk, together, static_cast<T*>(out)};
  auto workspace = workspace_of<T>(ntkfast::cuda::gram_workspace(p));
  return ntkfast::cuda::gram(p, workspace.data(), nullptr);
}

}  // namespace

#define EXPORT(T, name)                                                                                             \
  extern "C" int diag_##name(const ChainArrays* chain, const GroupArrays* groups, int64_t tile_rows, double* out) { \
    return diag<T>(*chain, *groups, tile_rows, out);                                                                \
  }                                                                                                                 \
  extern "C" int64_t diag_workspace_##name(const ChainArrays* chain, const GroupArrays* groups) {                   \
    return diag_workspace<T>(*chain, *groups);                                                                      \
  }                                                                                                                 \
  extern "C" int factor_diag_##name(const ChainArrays* chain, const GroupArrays* groups, void* A, void* D,          \
                                    double* out) {                                                                  \
    return factor_diag<T>(*chain, *groups, A, D, out);                                                              \
  }                                                                                                                 \
  extern "C" int vjp_##name(const ChainArrays* chain, const GroupArrays* groups, void* A, void* D, const void* x,   \
                            void* const* grads) {                                                                   \
    return vjp<T>(*chain, *groups, A, D, x, grads);                                                                 \
  }                                                                                                                 \
  extern "C" int linear_sweep_##name(const ChainArrays* chain, const GroupArrays* groups, const void* offset,       \
                                     const void* pull, void* rows, void* const* grads, double* diag, void* A,       \
                                     void* D) {                                                                     \
    return linear_sweep<T>(*chain, *groups, offset, pull, rows, grads, diag, A, D);                                 \
  }                                                                                                                 \
  extern "C" int jvp_##name(const ChainArrays* chain, const GroupArrays* groups, void* A, void* D,                  \
                            void* const* tangents, double* out) {                                                   \
    return jvp<T>(*chain, *groups, A, D, tangents, out);                                                            \
  }                                                                                                                 \
  extern "C" int gram_##name(const ChainArrays* chain, const GroupArrays* groups, void* A, void* D,                 \
                             const GroupArrays* other, void* other_A, void* other_D, bool symmetric,                \
                             const bool* use_explicit, int64_t chunk, int together, void* out) {                    \
    return gram<T>(*chain, *groups, A, D, *other, other_A, other_D, symmetric, use_explicit, chunk, together, out); \
  }

EXPORT(float, float32)
EXPORT(double, float64)
