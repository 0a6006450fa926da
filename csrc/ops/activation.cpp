// activation_forward, activation_backward: one activation on all channels of a jet, and its pull-back.
#include "../cpu/activation.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/activation.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kForward = "ntkfast.activation_forward";
constexpr const char* kBackward = "ntkfast.activation_backward";

// The arguments of one call, checked before anything reads their memory.
struct Call {
  const char* op;
  const Tensor& z;      // (C, n, w)
  const Tensor* g;      // (C, n, w); null in the forward op
  const Tensor& omega;  // (1|n, M, F)
  const Tensor& out;    // (C, n, w)
  int64_t activation;
  double beta, threshold;
  int64_t directions;

  int64_t channels() const { return z.size(0); }
  int64_t points() const { return z.size(1); }
  int64_t collapsed() const { return channels() - 1 - directions; }
};

// A tensor beside z.
void check_beside(const Call& call, const Tensor& tensor, const char* name) {
  check_plain(call.op, tensor, name, call.z.scalar_type(), call.z);
}

void check(const Call& call) {
  const Tensor& z = call.z;
  STD_TORCH_CHECK(z.dim() == 3, call.op, ": expected z (channels, points, features), got ", shape_text(z), ".");
  check_beside(call, z, "z");
  STD_TORCH_CHECK(0 <= call.directions && call.directions < call.channels(), call.op, ": expected 0 to ",
                  call.channels() - 1, " directions in ", call.channels(), " channels, got ", call.directions, ".");
  STD_TORCH_CHECK(0 <= call.activation && call.activation < core::kActivations, call.op,
                  ": expected an activation code from 0 to ", core::kActivations - 1, ", got ", call.activation, ".");
  check_beside(call, call.omega, "omega");
  const Tensor& omega = call.omega;
  const bool fits = omega.dim() == 3 && (omega.size(0) == 1 || omega.size(0) == call.points()) &&
                    omega.size(1) == call.collapsed() && omega.size(2) == call.directions;
  STD_TORCH_CHECK(fits, call.op, ": expected omega (1 or ", call.points(), ", ", call.collapsed(), ", ",
                  call.directions, "), got ", shape_text(omega), ".");
  if (call.g != nullptr) {
    check_beside(call, *call.g, "g");
    check_shape(call.op, *call.g, "g", shape_of(z));
    check_apart(call.op, call.out, *call.g, "g");
  }
  check_beside(call, call.out, "the output");
  check_shape(call.op, call.out, "the output", shape_of(z));
  check_apart(call.op, call.out, z, "z");
  check_apart(call.op, call.out, omega, "omega");
}

template <class T>
core::ActivationJet<T> jet_of(const Call& call) {
  const int64_t F = call.directions, M = call.collapsed(), n = call.points(), w = call.z.size(2);
  return {call.z.const_data_ptr<T>(),
          call.g == nullptr ? nullptr : call.g->const_data_ptr<T>(),
          call.omega.const_data_ptr<T>(),
          call.out.mutable_data_ptr<T>(),
          n,
          w,
          n * w,
          call.omega.size(0) == 1 ? 0 : M * F,
          static_cast<int>(F),
          static_cast<int>(M),
          static_cast<core::Activation>(call.activation),
          {static_cast<T>(call.beta), static_cast<T>(call.threshold)}};
}

template <class T>
void run(const Call& call) {
  const core::ActivationJet<T> jet = jet_of<T>(call);
  if (call.z.is_cpu()) {
    const double operations = 20.0 * static_cast<double>(call.z.numel());
    return call.g == nullptr ? activation_forward(jet, torch_parallel(operations))
                             : activation_backward(jet, torch_parallel(operations));
  }
#ifdef NTKFAST_CUDA
  on_current_stream(call.op, call.z, [&](void* stream) {
    return call.g == nullptr ? cuda::activation_forward(jet, stream) : cuda::activation_backward(jet, stream);
  });
#else
  refuse_cuda(call.op);
#endif
}

void run_checked(const Call& call) {
  with_dtype(call.op, call.z, "z", [&](auto zero) {
    check(call);
    run<decltype(zero)>(call);
  });
}

void activation_forward_op(const Tensor& z, const Tensor& omega, int64_t activation, double beta, double threshold,
                           int64_t directions, const Tensor& h) {
  run_checked({kForward, z, nullptr, omega, h, activation, beta, threshold, directions});
}

void activation_backward_op(const Tensor& z, const Tensor& g, const Tensor& omega, int64_t activation, double beta,
                            double threshold, int64_t directions, const Tensor& zbar) {
  run_checked({kBackward, z, &g, omega, zbar, activation, beta, threshold, directions});
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) {
  m.impl("activation_forward", TORCH_BOX(&ntkfast::activation_forward_op));
  m.impl("activation_backward", TORCH_BOX(&ntkfast::activation_backward_op));
}

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) {
  m.impl("activation_forward", TORCH_BOX(&ntkfast::activation_forward_op));
  m.impl("activation_backward", TORCH_BOX(&ntkfast::activation_backward_op));
}
