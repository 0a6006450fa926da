"""The packed sweep and what follows from it (Jᵀx, J v) against the same formulas without fusion."""

import measure
import ours
import pytest
import results
import setting
import torch
from baselines import unfused, unfused_kernels

SIZES = ((500, 300), (256, 1024), (50, 300))


def compare(width: int, n: int) -> dict:
    """Sweep, Jᵀx and J v at one size; each call of ours includes what a user's call includes."""
    net, x = setting.network(width), setting.points(n)
    generator = torch.Generator().manual_seed(5)
    cotangent = torch.randn(n, generator=generator)
    tangent = {name: torch.randn(p.shape, generator=generator) for name, p in net.named_parameters()}
    plain = unfused.Unfused(net, {"r": (n, unfused.WAVE)})
    exact = unfused.Unfused(setting.network(width).double(), {"r": (n, unfused.WAVE)})
    f = ours.factors(net, x)
    plain.sweep({"r": x})
    exact.sweep({"r": x.double()})
    sides = {
        "sweep": {"ntkfast": lambda: ours.factors(net, x), "unfused": lambda: plain.sweep({"r": x})},
        "vjp": {"ntkfast": lambda: f.vjp(cotangent), "unfused": lambda: unfused_kernels.vjp(plain, cotangent)},
        "jvp": {
            "ntkfast": lambda: f.jvp(tangent),
            "unfused": lambda: unfused_kernels.jvp(plain, list(tangent.values())),
        },
    }
    expected = {
        "sweep": exact.rows.clone(),
        "vjp": _flat(unfused_kernels.vjp(exact, cotangent.double())),
        "jvp": unfused_kernels.jvp(exact, [v.double() for v in tangent.values()]),
    }
    errors = {}
    for name, pair in sides.items():
        got = {side: _flat(call()) for side, call in pair.items()}
        errors[name] = measure.verified(got, expected[name], {"ntkfast": 1e-5, "unfused": 1e-4})
    timings = measure.in_turn({f"{name}, {side}": call for name, pair in sides.items() for side, call in pair.items()})
    return measure.comparison({"width": width, "n": n}, timings, errors=errors)


def _flat(result) -> torch.Tensor:
    """Rows, a dict or a list of gradients, as one vector."""
    if hasattr(result, "rows"):
        result = result.rows.detach()
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, list) else [result]
    return torch.cat([p.flatten() for p in parts])


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_factors(benchmark, width, n):
    record = compare(width, n)
    results.record("factors", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width), setting.points(n)
    benchmark.pedantic(ours.factors, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
