// diag: diagonal of the Gram matrix, (layers, N) in float64, by one streaming sweep. Seeds are known beforehand.
#include "../cpu/diag.h"

#include <torch/csrc/stable/library.h>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void diag_cpu(Tensors parameters, Ints activations, Floats constants, Tensors points, Tensors beta, Tensors omega,
              Ints groups, Tensors seeds, int64_t tile_rows, Tensor out) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_points(points, beta);
    args.set_omega(omega);
    args.set_seeds(seeds);
    check_plain(out, ScalarType::Double, "out");
    STD_TORCH_CHECK(out.numel() == args.sweep.layers * args.sweep.residual_rows, "ntkfast: expected out (",
                    args.sweep.layers, ", ", args.sweep.residual_rows, "), got ", shape_text(out));
    for (int g = 0; g < args.sweep.groups; ++g)
      STD_TORCH_CHECK(args.sweep.group[g].selected, "ntkfast: expected all groups to take part in a streaming sweep");
    STD_TORCH_CHECK(tile_rows >= 0 && tile_rows < (int64_t{1} << 31), "ntkfast: expected 0 to 2^31 tile rows, got ",
                    tile_rows);
    args.sweep.diag = data_of<double>(out);
    args.sweep.tile_rows = tile_rows;
    ntkfast::diag(args.sweep, torch_parallel(2 * product_operations(args.sweep, args.sweep.rows)));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("diag", TORCH_BOX(&ntkfast::diag_cpu)); }
