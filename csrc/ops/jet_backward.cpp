// jet_backward: cotangent stacks D of all components from their seeds and the stash of jet_forward.
#include "../cpu/jet_backward.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/jet_backward.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.jet_backward";

void jet_backward_op(Tensors parameters, Ints activations, Floats constants, Tensors omega, Ints groups, Tensors seeds,
                     Tensor Z, Tensor D) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_omega(omega);
    args.set_seeds(seeds);
    args.set_stash(Z);
    args.set_cotangents(D);
    check_apart(kOp, D, Z, "Z");
    if (parameters[0].is_cpu())
      return ntkfast::jet_backward(args.sweep,
                                   torch_parallel(product_operations(args.sweep, args.sweep.cotangent_rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, D, [&](void* stream) { return cuda::jet_backward(args.sweep, stream); });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jet_backward", TORCH_BOX(&ntkfast::jet_backward_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("jet_backward", TORCH_BOX(&ntkfast::jet_backward_op)); }
