// csrc/cuda/activation.h for ctypes.
#include "../../csrc/cuda/activation.h"
#include "../../csrc/cuda/error.h"

namespace {

template <class T>
int run(bool forward, const T* z, const T* g, const T* omega, T* out, int64_t n, int64_t w, int64_t omega_stride,
        int directions, int collapsed, int activation, double beta, double threshold) {
  const ntkfast::core::ActivationJet<T> jet{z,
                                            g,
                                            omega,
                                            out,
                                            n,
                                            w,
                                            n * w,
                                            omega_stride,
                                            directions,
                                            collapsed,
                                            static_cast<ntkfast::core::Activation>(activation),
                                            {T(beta), T(threshold)}};
  return forward ? ntkfast::cuda::activation_forward(jet, nullptr) : ntkfast::cuda::activation_backward(jet, nullptr);
}

}  // namespace

extern "C" int activation_float32(bool forward, const float* z, const float* g, const float* omega, float* out,
                                  int64_t n, int64_t w, int64_t omega_stride, int directions, int collapsed,
                                  int activation, double beta, double threshold) {
  return run(forward, z, g, omega, out, n, w, omega_stride, directions, collapsed, activation, beta, threshold);
}

extern "C" int activation_float64(bool forward, const double* z, const double* g, const double* omega, double* out,
                                  int64_t n, int64_t w, int64_t omega_stride, int directions, int collapsed,
                                  int activation, double beta, double threshold) {
  return run(forward, z, g, omega, out, n, w, omega_stride, directions, collapsed, activation, beta, threshold);
}

extern "C" const char* error_message(int code) { return ntkfast::cuda::error_message(code); }
