"""The diagonal of the wave kernel against torch.func and the same formulas without fusion."""

import measure
import ours
import pytest
import results
import setting
from baselines import torch_func, unfused, unfused_kernels

SIZES = ((500, 300), (128, 4096), (50, 300))


def plain_diag(net, x):
    """The unfused rival."""
    sweep = unfused.Unfused(net, {"r": (len(x), unfused.WAVE)}, keep=False)
    return lambda: unfused_kernels.diag(sweep, {"r": x})["r"]


def compare(width: int, n: int) -> dict:
    """All sides at one size, verified and timed."""
    net, x = setting.network(width), setting.points(n)
    expected = plain_diag(setting.network(width).double(), x.double())()
    ways = torch_func.candidates(torch_func.diag, net, x)
    mode = measure.fastest(ways)
    sides = {"ntkfast": lambda: ours.diag(net, x), "unfused": plain_diag(net, x), "torch.func": ways[mode]}
    errors = measure.verified(
        {k: side() for k, side in sides.items()}, expected, {**dict.fromkeys(sides, 1e-4), "ntkfast": 1e-5}
    )
    return measure.comparison(
        {"width": width, "n": n}, measure.in_turn(sides), errors=errors, variants={"torch.func": mode}
    )


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_diag(benchmark, width, n):
    record = compare(width, n)
    results.record("diag", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width), setting.points(n)
    benchmark.pedantic(ours.diag, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
