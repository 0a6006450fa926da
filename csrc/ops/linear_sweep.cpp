// linear_sweep: rows that are linear in the output channels by one sweep, and with them Jᵀ(pull ∘ rows), the diagonal
// of the Gram matrix by layers, and the stacks of factors; of these an empty tensor is left out, and an empty pull is
// zero.
#include "../cpu/linear_sweep.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/linear_sweep.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.linear_sweep";

void linear_sweep_op(Tensors parameters, Ints activations, Floats constants, Tensors points, Tensors beta,
                     Tensors omega, Ints groups, Tensors seeds, Tensor offset, Tensor pull, int64_t tile_rows,
                     Tensor rows, Tensors grads, Tensor diag, Tensor A, Tensor D) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(kOp, parameters, activations, constants, groups);
    args.set_streaming(points, beta, omega, seeds, tile_rows);
    const int64_t n = args.sweep.residual_rows;
    const auto check_rows = [&](const Tensor& tensor, const char* name) {
      check_plain(kOp, tensor, name, dtype_of<T>(), parameters[0]);
      check_shape(kOp, tensor, name, {n});
    };
    const auto given = [&](const Tensor& tensor, const char* name) -> const T* {
      if (tensor.numel() == 0) return nullptr;
      check_rows(tensor, name);
      return data_of<const T>(tensor);
    };
    check_rows(rows, "rows");
    if (diag.numel()) args.set_diag(diag, "diag");
    if (A.numel()) args.set_inputs(A);
    if (D.numel()) args.set_cotangents(D);
    const ParameterPointers<T> gradient(kOp, grads, "gradient", parameters);
    const LinearSweep<T> p{args.sweep,       given(offset, "offset"), given(pull, "pull"),
                           data_of<T>(rows), gradient.weight.data(),  gradient.bias.data()};
    if (parameters[0].is_cpu())
      return ntkfast::linear_sweep(p, torch_parallel(3 * product_operations(args.sweep, args.sweep.rows)));
#ifdef NTKFAST_CUDA
    check_channels(kOp, args.sweep);
    on_current_stream(kOp, rows, [&](void* stream) {
      const Tensor memory = workspace_like(rows, cuda::linear_sweep_workspace(p), dtype_of<T>());
      return cuda::linear_sweep(p, data_of<T>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("linear_sweep", TORCH_BOX(&ntkfast::linear_sweep_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("linear_sweep", TORCH_BOX(&ntkfast::linear_sweep_op)); }
