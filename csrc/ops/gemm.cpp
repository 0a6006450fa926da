// gemm: C = A B by the library's own tiles.
#include "../cpu/gemm.h"

#include <torch/csrc/stable/library.h>

#include "cuda_stream.h"
#include "sweep_args.h"

#ifdef NTKFAST_CUDA
#include "../cuda/gemm.h"
#endif

namespace ntkfast {
namespace {

constexpr const char* kOp = "ntkfast.gemm";

void gemm_op(Tensor a, Tensor b, Tensor out) {
  with_dtype(kOp, a, "a", [&](auto zero) {
    using T = decltype(zero);
    check_plain(kOp, a, "a", dtype_of<T>(), a);
    check_plain(kOp, b, "b", dtype_of<T>(), a);
    check_plain(kOp, out, "out", dtype_of<T>(), a);
    STD_TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0), kOp,
                    ": expected a (m, k) and b (k, n), got ", shape_text(a), " and ", shape_text(b), ".");
    check_shape(kOp, out, "out", {a.size(0), b.size(1)});
    check_apart(kOp, out, a, "a");
    check_apart(kOp, out, b, "b");
    const Gemm<T> p{a.size(0), b.size(1), a.size(1), data_of<const T>(a), data_of<const T>(b), data_of<T>(out)};
    if (a.is_cpu())
      return ntkfast::gemm(p, torch_parallel(2.0 * static_cast<double>(a.size(0)) * static_cast<double>(b.numel())));
#ifdef NTKFAST_CUDA
    on_current_stream(kOp, a, [&](void* stream) { return cuda::gemm(p, stream); });
#else
    refuse_cuda(kOp);
#endif
  });
}

}  // namespace
}  // namespace ntkfast

STABLE_TORCH_LIBRARY_IMPL(ntkfast, CPU, m) { m.impl("gemm", TORCH_BOX(&ntkfast::gemm_op)); }
STABLE_TORCH_LIBRARY_IMPL(ntkfast, CUDA, m) { m.impl("gemm", TORCH_BOX(&ntkfast::gemm_op)); }
