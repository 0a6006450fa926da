"""The fused activation of a jet (tanh, four channels) and its pull-back against the unfused formulas, one layer.

Both sides write into memory of their own that is used again; the unfused pull-back starts from what its forward kept.
"""

import measure
import pytest
import results
import torch
from baselines import unfused

import ntkfast  # noqa: F401  registers the ops
from ntkfast.networks import ACTIVATIONS

SIZES = ((500, 300), (128, 4096), (50, 300))
TANH, BETA, THRESHOLD = ACTIVATIONS["tanh"], 1.0, 20.0
WAVE = unfused.WAVE
F = len(WAVE.directions)


def inputs(width: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Channels z and cotangents g, (4, n, width), and the weights ω, (1, 1, 2)."""
    generator = torch.Generator().manual_seed(7)
    z, g = (torch.randn(WAVE.channels, n, width, generator=generator) for _ in range(2))
    return z, g, torch.tensor([[WAVE.omega]])


def fused(z, g, omega):
    """Forward and pull-back by the native ops."""
    ops, h, zbar = torch.ops.ntkfast, torch.empty_like(z), torch.empty_like(z)

    def forward():
        ops.activation_forward(z, omega, TANH, BETA, THRESHOLD, F, h)
        return h

    def backward():
        ops.activation_backward(z, g, omega, TANH, BETA, THRESHOLD, F, zbar)
        return zbar

    return forward, backward


def plain(z, g):
    """Forward and pull-back in torch operations."""
    h, zbar = torch.empty_like(z), torch.empty_like(z)
    s1, q, t, u = (torch.empty_like(z[0]) for _ in range(4))

    def forward():
        unfused.push(z, h, s1, q, WAVE.omega)
        return h

    def backward():
        unfused.pull(g, h, s1, q, WAVE.omega, t, u, out=zbar)
        return zbar

    return forward, backward


def compare(width: int, n: int) -> dict:
    """Both directions at one size, verified and timed."""
    z, g, omega = inputs(width, n)
    own, rival = fused(z, g, omega), plain(z, g)
    errors = {}
    for name, ours, theirs, exact in zip(
        ("forward", "backward"), own, rival, plain(z.double(), g.double()), strict=True
    ):
        errors[name] = measure.verified({"ntkfast": ours(), "unfused": theirs()}, exact(), 1e-5)
    sides = {}
    for name, ours, theirs in zip(("forward", "backward"), own, rival, strict=True):
        sides |= {f"{name}, ntkfast": ours, f"{name}, unfused": theirs}
    return measure.comparison({"width": width, "n": n}, measure.in_turn(sides), errors=errors)


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_activation(benchmark, width, n):
    record = compare(width, n)
    results.record("activation", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    benchmark.pedantic(fused(*inputs(width, n))[0], rounds=measure.FAST_REPEATS, warmup_rounds=2)
