// jvp: J v from stored factors, (N,) in float64; an empty tangent counts as zero.
#include "../cpu/jvp.h"

#include <torch/csrc/stable/library.h>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void jvp_cpu(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D, Tensors tangents,
             Tensor out) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> args(parameters, activations, constants, groups);
    args.set_inputs(A);
    args.set_cotangents(D);
    check_plain(out, ScalarType::Double, "out");
    STD_TORCH_CHECK(out.numel() == args.sweep.residual_rows, "ntkfast: expected out (", args.sweep.residual_rows,
                    ",), got ", shape_text(out));
    STD_TORCH_CHECK(tangents.size() == parameters.size(), "ntkfast: expected ", parameters.size(), " tangents, got ",
                    tangents.size());
    std::vector<const T*> weight, bias;
    for (std::size_t i = 0; i < tangents.size(); ++i) {
      check_plain(tangents[i], dtype_of<T>(), "tangent");
      STD_TORCH_CHECK(tangents[i].numel() == 0 || tangents[i].numel() == parameters[i].numel(),
                      "ntkfast: expected a tangent of shape ", shape_text(parameters[i]), ", got ",
                      shape_text(tangents[i]));
      (i % 2 ? bias : weight)
          .push_back(tangents[i].numel() ? static_cast<const T*>(tangents[i].const_data_ptr()) : nullptr);
    }
    ntkfast::jvp(Jvp<T>{args.sweep, weight.data(), bias.data(), data_of<double>(out)},
                 torch_parallel(product_operations(args.sweep, args.sweep.rows)));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("jvp", TORCH_BOX(&ntkfast::jvp_cpu)); }
