"""The contraction of stored factors: its rate against ``torch.mm`` of the same operands, and what the cost model costs.

* Rate: flops of the structured path, one triangle, N²C²(m+n) a layer, over its time; ``torch.mm`` multiplies the stacks
  (C·N × w)·(w × C·N) whole.
* Regret: time of the paths that the cost model chooses over that of the better forced path.
"""

import measure
import ours
import pytest
import results
import setting
import torch

RATES = ((256, 1024, "float32"), (256, 1024, "float64"))
CHANNELS = 4
WIDTHS, POINTS = (16, 64, 256, 512), (100, 500, 2000)
CELLS = 300 * 300 * 12 * 12 * 512  # N²C²w above which a cell would take minutes
QUICK = 100_000_000  # N²C²w of a few milliseconds


def rate(width: int, n: int, dtype: str) -> dict:
    """Seconds and rates of the structured contraction and of the product."""
    kind = getattr(torch, dtype)
    net, x = setting.network(width, dtype=kind), setting.points(n, kind)
    structured, flops = ours.contraction(net, x, ours.residuals()["r"], "structured")
    a = torch.randn(CHANNELS * n, width, dtype=kind)
    b = torch.randn(width, CHANNELS * n, dtype=kind)
    out = torch.empty(CHANNELS * n, CHANNELS * n, dtype=kind)
    sides = {"ntkfast": structured, "torch.mm": lambda: torch.mm(a, b, out=out)}
    timings = measure.in_turn(sides)
    product = 2 * (CHANNELS * n) ** 2 * width
    rates = {"ntkfast": flops / timings["ntkfast"].median, "torch.mm": product / timings["torch.mm"].median}
    return measure.comparison(
        {"width": width, "n": n, "dtype": dtype},
        timings,
        gflops={k: round(v / 1e9, 1) for k, v in rates.items()},
        over_mm=rates["ntkfast"] / rates["torch.mm"],
    )


def grid() -> list[tuple[int, int, int]]:
    """(width, channels, points) of the regret: small ones all, large ones where a call stays below a second or so."""
    cells = [(w, c, n) for w in WIDTHS for c in (1, 3, 4, 6, 12) for n in POINTS]
    return [(w, c, n) for w, c, n in cells if (n * c) ** 2 * w <= CELLS]


def regret(width: int, channels: int, n: int) -> dict:
    """Seconds of the chosen and of both forced paths."""
    residual, columns = ours.laplacian(channels)
    net = setting.network(width, inputs=columns)
    x = setting.points(n, columns=columns)
    sides = {m: ours.contraction(net, x, residual, m)[0] for m in ("auto", "structured", "explicit")}
    # Calls of a tenth of a millisecond scatter by a third: more of them, and more turns.
    quick = (n * channels) ** 2 * width <= QUICK
    timings = measure.in_turn(sides, rounds=9, repeats=99) if quick else measure.in_turn(sides, repeats=9)
    best = min(timings["structured"].median, timings["explicit"].median)
    size = {"width": width, "channels": channels, "n": n}
    return measure.comparison(size, timings, regret=timings["auto"].median / best)


@pytest.mark.parametrize(("width", "n", "dtype"), RATES)
def test_rate(benchmark, width, n, dtype):
    record = rate(width, n, dtype)
    results.record("rate", f"{width}x{n} {dtype}", record)
    benchmark.extra_info.update(record)
    kind = getattr(torch, dtype)
    call, _ = ours.contraction(
        setting.network(width, dtype=kind), setting.points(n, kind), ours.residuals()["r"], "structured"
    )
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)


def test_regret(benchmark):
    """One record for the whole grid; the worst cell is named in it."""

    def measured() -> dict:
        cells = [regret(*cell) for cell in grid()]
        worst = max(cells, key=lambda cell: cell["regret"])
        return {"cells": cells, "worst": {"size": worst["size"], "regret": worst["regret"]}}

    record = benchmark.pedantic(measured, rounds=1)
    results.record("regret", "grid", record)
    benchmark.extra_info["worst"] = record["worst"]
