"""The trace of the wave kernel against torch.func, one backward per row, and the same formulas without fusion."""

import measure
import ours
import pytest
import results
import setting
import torch
from baselines import per_row, torch_func, unfused, unfused_kernels

PER_ROW_LIMIT = 300  # rows; a backward each takes seconds


def expected_trace(width: int, n: int) -> torch.Tensor:
    """The trace in float64, by the formulas that the tests check against autograd."""
    net, x = setting.network(width).double(), setting.points(n).double()
    return unfused_kernels.trace(unfused.Unfused(net, {"r": (n, unfused.WAVE)}, keep=False), {"r": x})


def unfused_trace(net, x):
    """The unfused rival in the fastest number of pieces: pieces stay in cache, the whole has larger products."""

    def in_pieces(rows):
        sweep = unfused.Unfused(net, {"r": (rows, unfused.WAVE)}, keep=False)
        return lambda: unfused_kernels.trace(sweep, {"r": x})

    ways = {f"{len(x) // k} rows at a time": in_pieces(len(x) // k) for k in (1, 2, 4) if len(x) % k == 0}
    best = measure.fastest(ways)
    return best, ways[best]


def compare(width: int, n: int) -> dict:
    """All sides at one size, verified and timed."""
    net, x = setting.network(width), setting.points(n)
    ways = torch_func.candidates(torch_func.trace, net, x)
    mode = measure.fastest(ways)
    pieces, plain = unfused_trace(net, x)
    sides = {"ntkfast": lambda: ours.trace(net, x), "unfused": plain, "torch.func": ways[mode]}
    if n <= PER_ROW_LIMIT:
        rows = {"one graph per row": False, "one graph for all": True}
        graph = measure.fastest({k: lambda shared=s: per_row.trace(net, x[:30], shared) for k, s in rows.items()})
        sides["backward per row"] = lambda: per_row.trace(net, x, rows[graph])
    tolerance = dict.fromkeys(sides, 1e-4) | {"ntkfast": 1e-5}
    errors = measure.verified({k: side() for k, side in sides.items()}, expected_trace(width, n), tolerance)
    timings = measure.in_turn(sides)
    variants = {"torch.func": mode, "unfused": pieces}
    return measure.comparison({"width": width, "n": n}, timings, errors=errors, variants=variants)


@pytest.mark.parametrize(("width", "n"), setting.SIZES)
def test_trace(benchmark, width, n):
    record = compare(width, n)
    results.record("trace", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width), setting.points(n)
    benchmark.pedantic(ours.trace, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
