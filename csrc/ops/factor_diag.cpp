// factor_diag: diagonal of the Gram matrix, (layers, N) in float64, from stored factors.
#include "../cpu/factor_diag.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/factor_diag.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.factor_diag";

void factor_diag_op(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D,
                    Tensor out) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    args.set_diag(out, "out");
    check_apart(kOp, out, A, "A");
    check_apart(kOp, out, D, "D");
    if (parameters[0].is_cpu())
      return ntkfast::factor_diag(args.sweep, torch_parallel(stack_features(args.sweep) * 10.0 *
                                                             static_cast<double>(args.sweep.cotangent_rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, out, [&](void* stream) { return cuda::factor_diag(args.sweep, stream); });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("factor_diag", TORCH_BOX(&ntkfast::factor_diag_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("factor_diag", TORCH_BOX(&ntkfast::factor_diag_op)); }
