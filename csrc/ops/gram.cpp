// gram: K = J J'ᵀ of two sets of stored factors of one chain, or of one set with itself.
#include "../cpu/gram.h"

#include <torch/csrc/stable/library.h>

#include <memory>

#include "sweep_args.h"

namespace ntkfast {
namespace {

void gram_cpu(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D,
              Ints other_groups, Tensor other_A, Tensor other_D, bool symmetric, Ints use_explicit, int64_t chunk,
              Tensor out) {
  with_dtype(parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> x(parameters, activations, constants, groups), y(parameters, activations, constants, other_groups);
    x.set_inputs(A);
    x.set_cotangents(D);
    y.set_inputs(other_A);
    y.set_cotangents(other_D);
    check_plain(out, dtype_of<T>(), "out");
    const int64_t rows = x.sweep.residual_rows, columns = y.sweep.residual_rows;
    STD_TORCH_CHECK(out.dim() == 2 && out.size(0) == rows && out.size(1) == columns, "ntkfast: expected out (", rows,
                    ", ", columns, "), got ", shape_text(out));
    STD_TORCH_CHECK(!symmetric || groups == other_groups,
                    "ntkfast: expected one set of groups for a symmetric gram, got two");
    STD_TORCH_CHECK(use_explicit.size() == activations.size() && chunk > 0, "ntkfast: expected a path for each of ",
                    activations.size(), " layers and a positive chunk, got ", use_explicit.size(), " and ", chunk);
    const auto paths = std::make_unique<bool[]>(use_explicit.size());
    for (std::size_t l = 0; l < use_explicit.size(); ++l) paths[l] = use_explicit[l] != 0;
    const double operations = 2.0 * static_cast<double>(x.sweep.cotangent_rows) *
                              static_cast<double>(y.sweep.cotangent_rows) * stack_features(x.sweep);
    if (rows > 0 && columns > 0)
      ntkfast::gram(Gram<T>{x.sweep, y.sweep, symmetric, paths.get(), chunk, data_of<T>(out)},
                    torch_parallel(operations));
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("gram", TORCH_BOX(&ntkfast::gram_cpu)); }
