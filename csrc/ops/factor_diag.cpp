// factor_diag: diagonal of the Gram matrix, (layers, N) in float64, from stored factors.
#include "../cpu/factor_diag.h"

#include <torch/csrc/stable/library.h>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void factor_diag_cpu(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D,
                     Tensor out) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    check_plain(out, ScalarType::Double, "out");
    STD_TORCH_CHECK(out.numel() == args.sweep.layers * args.sweep.residual_rows, "ntkfast: expected out (",
                    args.sweep.layers, ", ", args.sweep.residual_rows, "), got ", shape_text(out));
    args.sweep.diag = data_of<double>(out);
    ntkfast::factor_diag(
        args.sweep, torch_parallel(stack_features(args.sweep) * 10.0 * static_cast<double>(args.sweep.cotangent_rows)));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("factor_diag", TORCH_BOX(&ntkfast::factor_diag_cpu)); }
