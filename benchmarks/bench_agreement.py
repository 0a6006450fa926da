"""Agreement of trace, diagonal and gram with their definitions in ``ntkfast.reference``, on three residuals."""

import measure
import ours
import results
import setting
import torch

BOUNDS = {"float64": 1e-10, "float32": 1e-5}


def compare(width: int = 50, n: int = 40) -> dict:
    """The largest relative error per dtype; the reference is always computed in float64."""
    import ntkfast as ntk

    errors = {}
    for dtype in (torch.float64, torch.float32):
        net, x = setting.network(width, dtype=dtype), setting.points(n, dtype)
        exact_net, exact_x = setting.network(width, dtype=dtype).double(), x.double()
        for name, residual in ours.residuals().items():
            for verb in ("trace", "diag", "gram"):
                got = getattr(ntk, verb)(net, x, residual)
                expected = getattr(ntk.reference, verb)(exact_net, exact_x, residual)
                errors[f"{str(dtype).removeprefix('torch.')} {verb} {name}"] = measure.relative_error(got, expected)
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
