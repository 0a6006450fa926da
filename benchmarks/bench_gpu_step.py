"""A training step with exact traces on a GPU, against every way to run nested autograd there: the strongest counts.

Ours and the unfused formulas give loss, gradient and the traces of all groups; nested autograd gives loss and gradient
alone. Each runs eagerly and captured in a CUDA graph; nested autograd is compiled too.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping

import exact
import floors
import measure
import ours
import pytest
import results
import setting
import torch
from baselines import autograd_step, compiled_step, unfused_kernels
from setting import LOSS_WEIGHTS, Device
from sides import IN_GRAPH, Sides
from torch import Tensor, nn

pytestmark = pytest.mark.gpu

WIDTHS = (500, 100)
OURS = "ntkfast with traces"
# To compile takes minutes: NTKFAST_BENCH_COMPILE=0 leaves those rivals out.
COMPILERS = {} if os.environ.get("NTKFAST_BENCH_COMPILE") == "0" else compiled_step.COMPILERS
Points = dict[str, Tensor]


def unfused_step(net: nn.Sequential, points: Points):
    """The unfused rival, with the traces of the factors that the step has made."""
    sweep = exact.sweep(net, points)

    def call():
        loss, gradient = unfused_kernels.step(sweep, points, LOSS_WEIGHTS)
        return loss, gradient, {g: d.sum(dtype=torch.float64) for g, d in unfused_kernels.diag_of(sweep).items()}

    return call


def checker(net: nn.Sequential, points: Points):
    """(name, result) → the larger error of loss, gradient and traces, against float64 on the CPU."""
    loss, gradient, traces = exact.step(net, points, LOSS_WEIGHTS)
    whole = torch.cat([g.flatten() for g in gradient])

    def check(name: str, got) -> float:
        bound = 1e-5 if name.startswith("ntkfast") else 1e-4
        found = {f"loss of {name}": (got[0].cpu(), loss)}
        found[f"gradient of {name}"] = (torch.cat([g.flatten() for g in got[1]]).cpu(), whole)
        if len(got) == 3:
            found |= {f"trace {g} of {name}": (trace.cpu(), traces[g]) for g, trace in got[2].items()}
        return max(measure.verified({k: a}, b, bound)[k] for k, (a, b) in found.items())

    return check


def add_autograd(sides: Sides, net: nn.Sequential, points: Points) -> str:
    """Nested autograd by its fastest way, and every way in a graph; returns the fastest."""
    ways = {k: lambda f=f: f(net, points, LOSS_WEIGHTS) for k, f in autograd_step.ALL.items()}
    best = measure.fastest(ways, sides.device)
    sides.add("nested autograd", ways[best])
    for way, step in autograd_step.ALL.items():
        # Autograd remembers the stream that a parameter was first used on: these have met that of the capture alone.
        own = copy.deepcopy(net)
        sides.graph(f"nested autograd, {way}", lambda step=step, own=own: step(own, points, LOSS_WEIGHTS))
    return best


def add_compiled(sides: Sides, net: nn.Sequential, points: Points, compilers: Mapping[str, dict]) -> None:
    """Nested derivatives under ``torch.compile``: all ways in the first mode, the fastest of them in the others."""
    steps = {way: compiled_step.functional(net, points, LOSS_WEIGHTS, way) for way in compiled_step.ROWS}
    (first, options), *others = compilers.items()
    made = {}
    for way, step in steps.items():
        name = f"compiled, {way}, {first}"
        if sides.attempt(name, lambda step=step: compiled_step.compiled(step, options)):
            made[name] = way
            sides.graph(name, sides.calls[name])
    if not made:
        return
    way = made[measure.fastest({name: sides.calls[name] for name in made}, sides.device)]
    for mode, options in others:
        name = f"compiled, {way}, {mode}"
        sides.attempt(name, lambda options=options: compiled_step.compiled(steps[way], options))


def compare(
    width: int,
    device: Device,
    top: floors.Ceilings,
    rows: Mapping[str, int] = setting.STEP_ROWS,
    compilers: Mapping[str, dict] = COMPILERS,
    **timing: int,
) -> dict:
    """All sides at one width, verified and timed; no compilers, no compiled sides."""
    net, points = setting.network(width, device=device), setting.step_points(rows=rows, device=device)
    sides = Sides(device, checker(net, points))
    for name, traces in (("ntkfast", False), (OURS, True)):
        sides.add(name, ours.prepared_step(net, points, LOSS_WEIGHTS, traces))
    sides.add("unfused with traces", unfused_step(net, points))
    for name, traces in (("ntkfast", False), (OURS, True)):
        sides.graph(name, ours.prepared_step(net, points, LOSS_WEIGHTS, traces))  # the graph's own buffers
    sides.graph("unfused with traces", unfused_step(net, points))
    variants = {"nested autograd": add_autograd(sides, net, points)}
    if compilers:
        add_compiled(sides, net, points, compilers)
    else:
        sides.missing["compiled"] = "no compiler was asked for (NTKFAST_BENCH_COMPILE=0)"
    record = sides.record({"width": width, **rows}, variants=variants, **timing)
    medians = {name: t["median"] for name, t in record["seconds"].items()}
    rivals = {name: median for name, median in medians.items() if not name.startswith("ntkfast")}
    record["strongest"] = min(rivals, key=rivals.__getitem__)
    moved = floors.bytes_of([*net.parameters()]) * 2 + floors.bytes_of(points.values())
    record["shares"] = {
        name: floors.share(medians[name], floors.step_flops(net, points), moved, "float32", top)
        for name in (OURS, OURS + IN_GRAPH)
        if name in medians
    }
    return record


@pytest.mark.parametrize("width", WIDTHS)
def test_gpu_step(benchmark, gpu, width):
    args = (width, gpu, floors.ceilings(gpu), setting.STEP_ROWS, COMPILERS)
    record = benchmark.pedantic(compare, args, rounds=1)
    results.keep("gpu", "step", str(width), record, gpu)
    benchmark.extra_info.update(record)
