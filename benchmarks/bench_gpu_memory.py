"""One trace over a million points on a GPU within a budget: time, and the peak of torch's allocator."""

from __future__ import annotations

import exact
import measure
import ours
import pytest
import results
import setting
from setting import Device
from sides import Sides

pytestmark = pytest.mark.gpu

WIDTH, MILLION, BUDGET = 128, 10**6, "1GB"
PIECE = 15_625  # rows of the reference at a time; divides a million


def compare(
    width: int, n: int, budget: str, device: Device, piece: int = PIECE, rounds: int = 3, repeats: int = 9
) -> dict:
    """Time within the budget and without one, verified, and the peak of both; the points themselves do not count."""
    net, x = setting.network(width, device=device), setting.points(n, device=device)
    expected = exact.trace(net, x, piece)

    def check(name: str, got) -> float:
        return measure.verified({name: got}, expected, 1e-5)[name]

    sides = Sides(device, check)
    sides.add("ntkfast", lambda: ours.trace(net, x, budget))
    sides.add("ntkfast, no budget", lambda: ours.trace(net, x))
    return sides.record({"width": width, "n": n}, rounds, repeats, budget=budget)


def test_gpu_memory(benchmark, gpu):
    record = benchmark.pedantic(compare, (WIDTH, MILLION, BUDGET, gpu), rounds=1)
    results.keep("gpu", "memory", "million", record, gpu)
    benchmark.extra_info.update(record)
