// jet_forward: output channels of all groups; the stacks A and Z too where they are not empty.
#include "../cpu/jet_forward.h"

#include <torch/csrc/stable/library.h>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void jet_forward_cpu(Tensors parameters, Ints activations, Floats constants, Tensors points, Tensors beta,
                     Tensors omega, Ints groups, Tensor out, Tensor A, Tensor Z) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_points(points, beta);
    args.set_omega(omega);
    check_plain(out, dtype_of<T>(), "out");
    const int64_t expected = args.sweep.rows * args.sweep.layer[args.sweep.layers - 1].n_out;
    STD_TORCH_CHECK(out.numel() == expected, "ntkfast: expected out with ", expected, " elements, got ", out.numel());
    args.sweep.out = data_of<T>(out);
    if (A.numel() > 0) {
      args.set_inputs(A);
      args.set_stash(Z);
    }
    ntkfast::jet_forward(args.sweep, torch_parallel(product_operations(args.sweep, args.sweep.rows)));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jet_forward", TORCH_BOX(&ntkfast::jet_forward_cpu)); }
