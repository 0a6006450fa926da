"""The trace against its own dense products: 4·C·N·Σ n_in·n_out operations at the highest rate of any product at hand.

Rates are those of ``torch.mm``, of oneDNN and of the library's own product, at (C·N × w)·(w × w), in the same run.
"""

import measure
import ours
import pytest
import results
import setting
import torch

SIZES = ((500, 300), (256, 1024), (128, 4096))
CHANNELS = 4


def products(width: int, n: int) -> dict:
    """One call of every dense product, results into reused memory where the interface allows it."""
    generator = torch.Generator().manual_seed(6)
    a = torch.randn(CHANNELS * n, width, generator=generator)
    b = torch.randn(width, width, generator=generator)
    out, transposed, bias = torch.empty_like(a), b.t().contiguous(), torch.zeros(width)
    calls = {"torch.mm": lambda: torch.mm(a, b, out=out)}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        calls["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, transposed, bias, "none", [], "")
    calls["own product"] = ours.product(a, b)
    measure.verified({k: call() for k, call in calls.items()}, a.double() @ b.double(), 1e-5)
    return calls


def compare(width: int, n: int) -> dict:
    """Time of the trace over the time of its products at the best rate."""
    net, x = setting.network(width), setting.points(n)
    calls = products(width, n)
    timings = measure.in_turn({"ntkfast": lambda: ours.trace(net, x), **calls}, rounds=7, repeats=42)
    flops = 2 * CHANNELS * n * width * width
    rates = {name: flops / timings[name].median for name in calls}
    floor = setting.product_flops(net, n, CHANNELS) / max(rates.values())
    return measure.comparison(
        {"width": width, "n": n},
        timings,
        gflops={name: round(rate / 1e9, 1) for name, rate in rates.items()},
        floor_seconds=floor,
        over_floor=timings["ntkfast"].median / floor,
    )


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_roofline(benchmark, width, n):
    record = compare(width, n)
    results.record("roofline", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width), setting.points(n)
    benchmark.pedantic(ours.trace, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
