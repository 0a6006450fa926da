"""Agreement of traces, diagonals, grams and gradients of losses with ``ntkfast.reference``, on three residuals."""

import measure
import ours
import results
import setting
import torch
from torch import Tensor, nn

BOUNDS = {"float64": 1e-10, "float32": 1e-5}


def errors_of(net: nn.Module, x: Tensor, exact: nn.Module, name: str) -> dict[str, float]:
    """Relative errors of one residual's kernels and of the gradient of its loss; the twin in float64 is exact."""
    import ntkfast as ntk

    residual, double = ours.residuals()[name], x.double()
    pairs = {
        verb: (getattr(ntk, verb)(net, x, residual), getattr(ntk.reference, verb)(exact, double, residual))
        for verb in ("trace", "diag", "gram")
    }
    loss = ntk.reference.rows(exact, double, residual).square().mean()
    expected = torch.autograd.grad(loss, list(exact.parameters()), materialize_grads=True)
    found = ntk.loss_gradient(net, {name: (x, residual)}).gradient.values()
    pairs["gradient"] = tuple(torch.cat([g.flatten() for g in gradient]) for gradient in (found, expected))
    return {f"{what} {name}": measure.relative_error(*pair) for what, pair in pairs.items()}


def compare(width: int = 50, n: int = 40) -> dict:
    """The largest relative error per dtype; the reference is always computed in float64."""
    errors = {}
    for dtype in (torch.float64, torch.float32):
        net, x = setting.network(width, dtype=dtype), setting.points(n, dtype)
        for name in ours.residuals():
            found = errors_of(net, x, setting.network(width, dtype=dtype).double(), name)
            errors |= {f"{str(dtype).removeprefix('torch.')} {what}": error for what, error in found.items()}
    largest = {d: max(e for key, e in errors.items() if key.startswith(d)) for d in BOUNDS}
    return {"size": {"width": width, "n": n}, "errors": errors, "largest": largest}


def test_agreement(benchmark):
    record = benchmark.pedantic(compare, rounds=1)
    results.record("agreement", "all", record)
    benchmark.extra_info.update(record)
    for dtype, bound in BOUNDS.items():
        assert record["largest"][dtype] <= bound, (
            f"expected {dtype} within {bound:g}, got {record['largest'][dtype]:.2e}"
        )
