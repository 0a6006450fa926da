// gram: K = J J'ᵀ of two sets of stored factors of one chain, or, symmetric, of the first with itself.
#include "../cpu/gram.h"

#include <torch/csrc/stable/library.h>

#include <memory>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/gram.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.gram";

// Rows of K: those of all components, or of points where `together` components of each are summed.
template <class T>
int64_t entries_of(const Sweep<T>& sweep, int64_t together) {
  STD_TORCH_CHECK(together >= 1, kOp, ": expected at least 1 component to be summed, got ", together, ".");
  for (int g = 0; g < sweep.groups; ++g) {
    const int components = sweep.group[g].components;
    STD_TORCH_CHECK(together == 1 || !sweep.group[g].selected || together == components, kOp, ": expected groups of ",
                    together, " components, which are summed, got one of ", components, ".");
  }
  return sweep.residual_rows / together;
}

void gram_op(Tensors parameters, Ints activations, Floats constants, Ints groups, Tensor A, Tensor D, Ints other_groups,
             Tensor other_A, Tensor other_D, bool symmetric, Ints use_explicit, int64_t chunk, int64_t together,
             Tensor out) {
  with_dtype(kOp, parameters, [&](auto zero) {
    using T = decltype(zero);
    SweepArgs<T> x(kOp, parameters, activations, constants, groups),
        y(kOp, parameters, activations, constants, other_groups);
    x.set_inputs(A);
    x.set_cotangents(D);
    y.set_inputs(symmetric ? A : other_A);  // half of K is written for the other half
    y.set_cotangents(symmetric ? D : other_D);
    check_plain(kOp, out, "out", dtype_of<T>(), parameters[0]);
    const int64_t rows = entries_of(x.sweep, together), columns = entries_of(y.sweep, together);
    check_shape(kOp, out, "out", {rows, columns});
    STD_TORCH_CHECK(!symmetric || groups == other_groups, kOp,
                    ": expected one set of groups for a symmetric gram, got two.");
    check_apart(kOp, out, A, "A");
    check_apart(kOp, out, D, "D");
    check_apart(kOp, out, other_A, "other_A");
    check_apart(kOp, out, other_D, "other_D");
    STD_TORCH_CHECK(use_explicit.size() == activations.size() && chunk > 0, kOp, ": expected a path for each of ",
                    activations.size(), " layers and a positive chunk, got ", use_explicit.size(), " and ", chunk, ".");
    const auto paths = std::make_unique<bool[]>(use_explicit.size());
    for (std::size_t l = 0; l < use_explicit.size(); ++l) {
      paths[l] = use_explicit[l] != 0;
      STD_TORCH_CHECK(together == 1 || !paths[l], kOp, ": expected structured layers where components are summed.");
    }
    if (rows == 0 || columns == 0) return;
    const double operations = 2.0 * static_cast<double>(x.sweep.cotangent_rows) *
                              static_cast<double>(y.sweep.cotangent_rows) * stack_features(x.sweep);
    const Gram<T> p{x.sweep, y.sweep, symmetric, paths.get(), chunk, static_cast<int>(together), data_of<T>(out)};
    if (parameters[0].is_cpu()) return ntkfast::gram(p, torch_parallel(operations));
#ifdef NTKFAST_CUDA
    check_channels(kOp, x.sweep);
    check_channels(kOp, y.sweep);
    on_current_stream(kOp, out, [&](void* stream) {
      const Tensor memory = workspace_like(out, cuda::gram_workspace(p), dtype_of<T>());
      return cuda::gram(p, data_of<T>(memory), stream);
    });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("gram", TORCH_BOX(&ntkfast::gram_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("gram", TORCH_BOX(&ntkfast::gram_op)); }
