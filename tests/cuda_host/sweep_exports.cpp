// csrc/cuda/{gemm,jet_forward,jet_backward,small_sweep}.h for ctypes.
#include "../../csrc/cuda/gemm.h"
#include "../../csrc/cuda/jet_backward.h"
#include "../../csrc/cuda/jet_forward.h"
#include "../../csrc/cuda/small_sweep.h"
#include "host_sweep.h"

namespace {

using cuda_host::ChainArrays;
using cuda_host::GroupArrays;
using cuda_host::HostSweep;

template <class T>
int forward(const ChainArrays& chain, const GroupArrays& groups, void* out, void* A, void* Z) {
  HostSweep<T> args(chain, groups);
  if (A != nullptr) args.set_stacks(A, Z, nullptr);
  args.sweep.out = static_cast<T*>(out);
  std::vector<T> workspace(ntkfast::cuda::jet_forward_workspace(args.sweep));
  return ntkfast::cuda::jet_forward(args.sweep, workspace.data(), nullptr);
}

template <class T>
int backward(const ChainArrays& chain, const GroupArrays& groups, void* Z, void* D) {
  HostSweep<T> args(chain, groups);
  args.set_stacks(nullptr, Z, D);
  return ntkfast::cuda::jet_backward(args.sweep, nullptr);
}

template <class T>
int small_tile_rows(const ChainArrays& chain, const GroupArrays& groups, int task) {
  const HostSweep<T> args(chain, groups);
  return ntkfast::cuda::small_tile_rows(args.sweep, static_cast<ntkfast::cuda::Task>(task));
}

template <class T>
int gemm(int64_t rows, int64_t columns, int64_t depth, const T* a, const T* b, T* out) {
  return ntkfast::cuda::gemm(ntkfast::Gemm<T>{rows, columns, depth, a, b, out}, nullptr);
}

}  // namespace

#define EXPORT(T, name)                                                                                               \
  extern "C" int gemm_##name(int64_t rows, int64_t columns, int64_t depth, const void* a, const void* b, void* out) { \
    return gemm<T>(rows, columns, depth, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(out));   \
  }                                                                                                                   \
  extern "C" int jet_forward_##name(const ChainArrays* chain, const GroupArrays* groups, void* out, void* A,          \
                                    void* Z) {                                                                        \
    return forward<T>(*chain, *groups, out, A, Z);                                                                    \
  }                                                                                                                   \
  extern "C" int jet_backward_##name(const ChainArrays* chain, const GroupArrays* groups, void* Z, void* D) {         \
    return backward<T>(*chain, *groups, Z, D);                                                                        \
  }                                                                                                                   \
  extern "C" int small_tile_rows_##name(const ChainArrays* chain, const GroupArrays* groups, int task) {              \
    return small_tile_rows<T>(*chain, *groups, task);                                                                 \
  }

EXPORT(float, float32)
EXPORT(double, float64)
