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
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    check_plain(out, ScalarType::Double, "out", parameters[0]);
    STD_TORCH_CHECK(out.numel() == args.sweep.residual_rows, "ntkfast: expected out (", args.sweep.residual_rows,
                    ",), got ", shape_text(out));
    STD_TORCH_CHECK(tangents.size() == parameters.size(), "ntkfast: expected ", parameters.size(), " tangents, got ",
                    tangents.size());
    std::vector<const T*> weight, bias;
    for (std::size_t i = 0; i < tangents.size(); ++i) {
      check_plain(tangents[i], dtype_of<T>(), "tangent", parameters[0]);
      STD_TORCH_CHECK(tangents[i].numel() == 0 || tangents[i].numel() == parameters[i].numel(),
                      "ntkfast: expected a tangent of shape ", shape_text(parameters[i]), ", got ",
                      shape_text(tangents[i]));
      (i % 2 ? bias : weight)
          .push_back(tangents[i].numel() ? static_cast<const T*>(tangents[i].const_data_ptr()) : nullptr);
    }
    const Jvp<T> p{args.sweep, weight.data(), bias.data(), data_of<double>(out)};
    if (parameters[0].is_cpu()) return ntkfast::jvp(p, torch_parallel(product_operations(args.sweep, args.sweep.rows)));
#ifdef NTKFAST_CUDA
    check_channels(args.sweep, kOp);
    on_current_stream(out, kOp, [&](void* stream) {
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
