// vjp: Jᵀx from stored factors, into one tensor a parameter; an empty one is left out.
#include "../cpu/vjp.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/vjp.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.vjp";

void vjp_op(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D, Tensor x,
            Tensors grads) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    check_plain(kOp, x, "x", dtype_of<T>(), parameters[0]);
    check_shape(kOp, x, "x", {args.sweep.residual_rows});
    const ParameterPointers<T> gradient(kOp, grads, "gradient", parameters);
    for (const Tensor& grad : grads) {
      check_apart(kOp, grad, A, "A");
      check_apart(kOp, grad, D, "D");
      check_apart(kOp, grad, x, "x");
    }
    const Vjp<T> p{args.sweep, data_of<const T>(x), gradient.weight.data(), gradient.bias.data()};
    if (parameters[0].is_cpu())
      return ntkfast::vjp(p, torch_parallel(product_operations(args.sweep, args.sweep.cotangent_rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, x, [&](void* stream) {
      const Tensor memory = workspace_like(x, cuda::vjp_workspace(p), dtype_of<T>());
      return cuda::vjp(p, data_of<T>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("vjp", TORCH_BOX(&ntkfast::vjp_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("vjp", TORCH_BOX(&ntkfast::vjp_op)); }
