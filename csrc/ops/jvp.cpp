// jvp: J v from stored factors, (N,) in float64; an empty tangent counts as zero.
#include "../cpu/jvp.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/jvp.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.jvp";

void jvp_op(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D, Tensors tangents,
            Tensor out) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    check_plain(kOp, out, "out", ScalarType::Double, parameters[0]);
    check_shape(kOp, out, "out", {args.sweep.residual_rows});
    const ParameterPointers<const T> tangent(kOp, tangents, "tangent", parameters);
    check_apart(kOp, out, A, "A");
    check_apart(kOp, out, D, "D");
    for (const Tensor& t : tangents) check_apart(kOp, out, t, "a tangent");
    const Jvp<T> p{args.sweep, tangent.weight.data(), tangent.bias.data(), data_of<double>(out)};
    if (parameters[0].is_cpu()) return ntkfast::jvp(p, torch_parallel(product_operations(args.sweep, args.sweep.rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, out, [&](void* stream) {
      const Tensor memory = workspace_like(out, cuda::jvp_workspace(p), ScalarType::Double);
      return cuda::jvp(p, data_of<double>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jvp", TORCH_BOX(&ntkfast::jvp_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("jvp", TORCH_BOX(&ntkfast::jvp_op)); }
