// jet_backward: cotangent stacks D of all components from their seeds and the stash of jet_forward.
#include "../cpu/jet_backward.h"

#include <torch/csrc/stable/library.h>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void jet_backward_cpu(Tensors parameters, Ints activations, Floats constants, Tensors omega, Ints groups, Tensors seeds,
                      Tensor Z, Tensor D) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_omega(omega);
    args.set_seeds(seeds);
    args.set_stash(Z);
    args.set_cotangents(D);
    ntkfast::jet_backward(args.sweep, torch_parallel(product_operations(args.sweep, args.sweep.cotangent_rows)));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jet_backward", TORCH_BOX(&ntkfast::jet_backward_cpu)); }
