// The activation jet, one thread a feature of a point: every channel is read and written once, contiguous along the
// features, and the elementary function is evaluated once for all channels.
#include "../core/faa_di_bruno.h"
#include "activation.h"
#include "launch.cuh"
#include "neuron.cuh"

namespace ntkfast::cuda {
namespace {

template <class T>
struct ActivationTraits {
  static constexpr int kThreads = 256;
  // Blocks in flight on a multiprocessor: 40 registers a thread for float, 64 for double, as many as avoid spilling.
  static constexpr int kBlocks = sizeof(T) == 4 ? 6 : 4;
  static_assert(kThreads % 32 == 0 && kThreads * kBlocks <= 1536, "a block is whole warps; sm_120 holds 1536 threads");
};

// Outputs never overlap inputs (the op checks it), so a load need not wait for the stores before it.
template <class T>
NTK_HD T read(const T* at) {
#if defined(__CUDA_ARCH__)
  return __ldg(at);
#else
  return *at;
#endif
}

// One element of each channel.
template <class T>
struct Channels {
  const T* at;
  int64_t stride;
  NTK_HD T operator()(int c) const { return read(at + c * stride); }
};

template <class T>
struct OutputChannels {
  T* at;
  int64_t stride;
  NTK_HD void operator()(int c, T value) const { at[c * stride] = value; }
};

template <class T>
struct Weights {
  const T* at;
  int directions;
  NTK_HD T operator()(int m, int k) const { return read(at + m * directions + k); }
};

// The weights of the point that element e = i·w + j belongs to. The 64-bit division is spent only where points differ.
template <class T>
NTK_HD Weights<T> weights_of(const core::ActivationJet<T>& jet, int64_t e) {
  return {jet.omega_stride == 0 ? jet.omega : jet.omega + e / jet.w * jet.omega_stride, jet.directions};
}

template <class T>
__device__ __forceinline__ int64_t element() {
  return int64_t(blockIdx.x) * ActivationTraits<T>::kThreads + threadIdx.x;
}

template <class T>
__global__ void __launch_bounds__(ActivationTraits<T>::kThreads, ActivationTraits<T>::kBlocks)
    forward_kernel(const core::ActivationJet<T> jet) {
  const int64_t e = element<T>();
  if (e >= jet.n * jet.w) return;
  core::push_forward(sigma_at<false>(jet.activation, jet.params, read(jet.z + e)).sigma, jet.directions, jet.collapsed,
                     Channels<T>{jet.z + e, jet.channel_stride}, OutputChannels<T>{jet.out + e, jet.channel_stride},
                     weights_of(jet, e));
}

template <class T>
__global__ void __launch_bounds__(ActivationTraits<T>::kThreads, ActivationTraits<T>::kBlocks)
    backward_kernel(const core::ActivationJet<T> jet) {
  const int64_t e = element<T>();
  if (e >= jet.n * jet.w) return;
  core::pull_back(sigma_at<false>(jet.activation, jet.params, read(jet.z + e)).sigma, jet.directions, jet.collapsed,
                  Channels<T>{jet.z + e, jet.channel_stride}, Channels<T>{jet.g + e, jet.channel_stride},
                  OutputChannels<T>{jet.out + e, jet.channel_stride}, weights_of(jet, e));
}

template <class T>
int run(void (*kernel)(core::ActivationJet<T>), const core::ActivationJet<T>& jet, void* stream) {
  constexpr int kThreads = ActivationTraits<T>::kThreads;
  if (!core::visit_activation(jet.activation, [](auto) {})) return cudaErrorInvalidValue;
  return launch(kernel, Grid{blocks_for(jet.n * jet.w, kThreads)}, Block{kThreads}, stream, jet);
}

}  // namespace

int activation_forward(const core::ActivationJet<float>& jet, void* stream) {
  return run(forward_kernel<float>, jet, stream);
}
int activation_forward(const core::ActivationJet<double>& jet, void* stream) {
  return run(forward_kernel<double>, jet, stream);
}
int activation_backward(const core::ActivationJet<float>& jet, void* stream) {
  return run(backward_kernel<float>, jet, stream);
}
int activation_backward(const core::ActivationJet<double>& jet, void* stream) {
  return run(backward_kernel<double>, jet, stream);
}

}  // namespace ntkfast::cuda
