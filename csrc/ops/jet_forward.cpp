// jet_forward: output channels of all groups; the stacks A and Z too where they are not empty.
#include "../cpu/jet_forward.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/jet_forward.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.jet_forward";

void jet_forward_op(Tensors parameters, Ints activations, Floats constants, Tensors points, Tensors beta, Tensors omega,
                    Ints groups, Tensor out, Tensor A, Tensor Z) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_points(points, beta);
    args.set_omega(omega);
    check_plain(kOp, out, "out", dtype_of<T>(), parameters[0]);
    const int64_t expected = args.sweep.rows * args.sweep.layer[args.sweep.layers - 1].n_out;
    STD_TORCH_CHECK(out.numel() == expected, kOp, ": expected out with ", expected, " elements, got ", out.numel(),
                    ".");
    args.sweep.out = data_of<T>(out);
    if (A.numel() > 0) {
      args.set_inputs(A);
      args.set_stash(Z);
    }
    if (parameters[0].is_cpu())
      return ntkfast::jet_forward(args.sweep, torch_parallel(product_operations(args.sweep, args.sweep.rows)));
#ifdef NTKFAST_CUDA
    on_current_stream(kOp, out, [&](void* stream) {
      const Tensor memory = workspace_like(out, cuda::jet_forward_workspace(args.sweep), dtype_of<T>());
      return cuda::jet_forward(args.sweep, data_of<T>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jet_forward", TORCH_BOX(&ntkfast::jet_forward_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("jet_forward", TORCH_BOX(&ntkfast::jet_forward_op)); }
