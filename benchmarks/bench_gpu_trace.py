"""Exact traces of the three groups of the wave problem on a GPU, one call for all, against torch.func and unfused."""

from __future__ import annotations

import exact
import floors
import measure
import ours
import pytest
import results
import setting
import torch
from baselines import torch_func, unfused_kernels
from setting import Device
from sides import IN_GRAPH, Sides
from torch import Tensor, nn

pytestmark = pytest.mark.gpu

SIZES = ((500, 300), (100, 300), (128, 4096))  # (width, points of each group)
MEGABYTES = (128, 1024, 8192)  # of a chunk of the Jacobian
RESIDUALS = {"u": torch_func.value, "ut": torch_func.velocity, "r": torch_func.wave}
Points = dict[str, Tensor]


def unfused_traces(net: nn.Sequential, points: Points):
    """The unfused rival: the three groups packed into one sweep."""
    sweep = exact.sweep(net, points, keep=False)
    return lambda: {name: d.sum(dtype=torch.float64) for name, d in unfused_kernels.diag(sweep, points).items()}


def torch_func_traces(net: nn.Sequential, points: Points, device: Device, megabytes: tuple[int, ...]):
    """The torch.func rival, group after group, in the fastest mode and chunks."""

    def call(chosen: dict):
        return lambda: {name: torch_func.trace(net, x, RESIDUALS[name], **chosen) for name, x in points.items()}

    rows = max(len(x) for x in points.values())
    ways = {name: call(chosen) for name, chosen in torch_func.options(net, rows, megabytes).items()}
    best = measure.fastest(ways, device)
    return best, ways[best]


def compare(
    width: int, n: int, device: Device, top: floors.Ceilings, megabytes: tuple[int, ...] = MEGABYTES, **timing: int
) -> dict:
    """All sides at one size, verified and timed."""
    net = setting.network(width, device=device)
    points = setting.step_points(rows=dict.fromkeys(setting.STEP_ROWS, n), device=device)
    expected = exact.traces(net, points)

    def check(name: str, got) -> float:
        """Each trace over its own value, so that no group hides another's error."""
        ratios = torch.stack([got[group].double().cpu() / expected[group] for group in expected])
        bound = 1e-5 if name.startswith("ntkfast") else 1e-4
        return measure.verified({name: ratios}, torch.ones_like(ratios), bound)[name]

    sides, variants = Sides(device, check), {}
    sides.add("ntkfast", lambda: ours.traces(net, points))
    plain = unfused_traces(net, points)
    sides.add("unfused", plain)
    variants["torch.func"], func = torch_func_traces(net, points, device, megabytes)
    sides.add("torch.func", func)
    for name, call in (("ntkfast", lambda: ours.traces(net, points)), ("unfused", plain), ("torch.func", func)):
        sides.graph(name, call)
    record = sides.record({"width": width, "n": n, "groups": len(points)}, variants=variants, **timing)
    moved = floors.bytes_of([*net.parameters(), *points.values()])
    record["shares"] = {
        name: floors.share(record["seconds"][name]["median"], floors.trace_flops(net, points), moved, "float32", top)
        for name in ("ntkfast", "ntkfast" + IN_GRAPH)
        if name in record["seconds"]
    }
    return record


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_gpu_trace(benchmark, gpu, width, n):
    record = benchmark.pedantic(compare, (width, n, gpu, floors.ceilings(gpu)), rounds=1)
    results.keep("gpu", "trace", f"{width}x{n}", record, gpu)
    benchmark.extra_info.update(record)
