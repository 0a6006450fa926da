"""Products K v without K: ours from stored factors, against ``torch.func`` (Jᵀv by vjp, then J by jvp) and dense K."""

import measure
import ours
import pytest
import results
import setting
import torch
from baselines import torch_func

SIZES = ((500, 300), (256, 1024), (64, 1600))


def compare(width: int, n: int) -> dict:
    """One product at one size in float64, verified and timed."""
    net, x = setting.network(width).double(), setting.points(n, torch.float64)
    K, v = ours.operator(net, x), torch.randn(n, dtype=torch.float64)
    dense = K.to_dense()
    ways = {mode: torch_func.operator(net, x, mode) for mode in torch_func.MODES}
    mode = measure.fastest({name: lambda apply=apply: apply(v) for name, apply in ways.items()})
    sides = {"ntkfast": lambda: K @ v, "torch.func": lambda: ways[mode](v), "dense product": lambda: dense @ v}
    errors = measure.verified({k: side() for k, side in sides.items()}, dense @ v, 1e-9)
    size = {"width": width, "n": n}
    return measure.comparison(size, measure.in_turn(sides), errors=errors, variants={"torch.func": mode})


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_operator(benchmark, width, n):
    record = compare(width, n)
    results.record("operator", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width).double(), setting.points(n, torch.float64)
    K, v = ours.operator(net, x), torch.randn(n, dtype=torch.float64)
    benchmark.pedantic(lambda: K @ v, rounds=measure.FAST_REPEATS, warmup_rounds=2)
