"""A training step (300 value, 100 velocity, 300 interior rows) against nested autograd, and what exact traces add."""

import exact
import measure
import ours
import pytest
import results
import setting
import torch
from baselines import autograd_step, unfused_kernels
from setting import LOSS_WEIGHTS

WIDTHS = (500, 256, 100)


def unfused_step(net, points):
    """The unfused rival: the three groups packed into one sweep."""
    sweep = exact.sweep(net, points)
    return lambda: unfused_kernels.step(sweep, points, LOSS_WEIGHTS), sweep


def _flat(gradient) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradient]).double()


def _joined(result, ratio: float) -> torch.Tensor:
    """Loss and gradient as one vector; the gradient times the ratio of their sizes, so that neither hides the other."""
    loss, gradient = result
    return torch.cat([loss.double().reshape(1), _flat(gradient) * ratio])


def compare(width: int) -> dict:
    """All sides at one width, verified and timed."""
    net, points = setting.network(width), setting.step_points()
    wide, sweep = unfused_step(exact.double(net), {k: x.double() for k, x in points.items()})
    loss, gradient = wide()
    ratio = float(loss / _flat(gradient).norm())
    ways = {k: lambda f=f: f(net, points, LOSS_WEIGHTS) for k, f in autograd_step.ALL.items()}
    way = measure.fastest(ways)
    sides = {
        "ntkfast": lambda: ours.step(net, points, LOSS_WEIGHTS),
        "ntkfast with traces": lambda: ours.step(net, points, LOSS_WEIGHTS, traces=True),
        "unfused": unfused_step(net, points)[0],
        "nested autograd": ways[way],
    }
    tolerance = dict.fromkeys(sides, 1e-5) | {"nested autograd": 1e-4}
    errors = measure.verified(
        {k: _joined(side(), ratio) for k, side in sides.items()}, _joined(wide(), ratio), tolerance
    )
    traces = ours.step_traces(net, points)
    expected = {name: d.sum() for name, d in unfused_kernels.diag_of(sweep).items()}
    for name, trace in traces.items():
        errors |= measure.verified({f"trace {name}": trace}, expected[name], 1e-5)
    timings = measure.in_turn(sides, rounds=7, repeats=42)
    return measure.comparison(
        {"width": width, **setting.STEP_ROWS}, timings, errors=errors, variants={"nested autograd": way}
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_step(benchmark, width):
    record = compare(width)
    results.record("step", str(width), record)
    benchmark.extra_info.update(record)
    args = (setting.network(width), setting.step_points(), LOSS_WEIGHTS)
    benchmark.pedantic(ours.step, args, rounds=measure.FAST_REPEATS, warmup_rounds=2)
