// diag: diagonal of the Gram matrix, (layers, N) in float64, by one streaming sweep. Seeds are known beforehand.
#include "../cpu/diag.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/diag.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.diag";

void diag_op(Tensors parameters, Ints activations, Floats constants, Tensors points, Tensors beta, Tensors omega,
             Ints groups, Tensors seeds, int64_t tile_rows, Tensor out) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_streaming(points, beta, omega, seeds, tile_rows);
    args.set_diag(out, "out");
    if (parameters[0].is_cpu())
      return ntkfast::diag(args.sweep, torch_parallel(2 * product_operations(args.sweep, args.sweep.rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, out, [&](void* stream) {
      const Tensor memory = workspace_like(out, cuda::diag_workspace(args.sweep), dtype_of<T>());
      return cuda::diag(args.sweep, data_of<T>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("diag", TORCH_BOX(&ntkfast::diag_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("diag", TORCH_BOX(&ntkfast::diag_op)); }
