"""Networks and ragged groups on which the sweeps' CUDA kernels are held against the CPU operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from cases import (
    burgers,
    identity_chain,
    leading_activation,
    mlp,
    ntk_parameterization,
    randomized,
    two_components,
    u_t,
    uniform,
    variable_coefficient,
    wave,
)
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import _ops
from ntkfast.chain import Chain
from ntkfast.sweep import ChainArgs, GroupArgs, chain_args, group_args, stash_size

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}
DIMENSIONS = 70  # a Laplacian of so many needs more channels than a tile has rows


@ntk.residual(*(f"x{i}" for i in range(DIMENSIONS)))
def wide_laplacian(u):
    return u.laplacian(*(f"x{i}" for i in range(DIMENSIONS)))


@ntk.residual(*"abcd")
def laplacian4(u):
    return u.laplacian(*"abcd") + u  # 6 channels


def ragged(n: int = 7) -> dict[str, tuple[int, object]]:
    return {
        "u": (2 * n + 3, ntk.value),
        "none": (0, u_t),
        "r": (n, wave),
        "two": (n + 4, two_components),
        "one": (1, burgers),
        "varies": (n, variable_coefficient),
    }


@dataclass(frozen=True)
class SweepCase:
    name: str
    net: Callable[[], nn.Module]
    groups: dict[str, tuple[int, object]]
    columns: int = 2
    wrt: str | list[str] | None = None

    def __str__(self) -> str:
        return self.name


CASES = [
    SweepCase("odd_widths", lambda: mlp(nn.Tanh, (2, 33, 17, 1)), ragged()),
    SweepCase("several_tiles", lambda: mlp(ntk.Sin, (2, 70, 131, 1)), ragged(9)),
    SweepCase("leading_activation", leading_activation, ragged()),
    SweepCase("identity_chain", identity_chain, ragged()),
    SweepCase("ntk_parameterization", ntk_parameterization, ragged()),
    SweepCase("frozen_first", lambda: mlp(nn.GELU, (2, 9, 8, 1)), ragged(), wrt="5.*"),
    SweepCase("only_biases", lambda: mlp(nn.Tanh, (2, 9, 8, 1)), ragged(), wrt="*.bias"),
    SweepCase("no_bias", lambda: mlp(nn.SiLU, (2, 9, 8, 1), bias=False), ragged()),
    SweepCase("one_point", lambda: mlp(nn.Tanh), {"r": (1, wave)}),
    SweepCase("no_point", lambda: mlp(nn.Tanh), {"r": (0, wave)}),
    SweepCase("many_groups", lambda: mlp(nn.Tanh, (2, 5, 1)), {f"g{i}": (1 + i % 3, burgers) for i in range(19)}),
    SweepCase("many_components", lambda: mlp(nn.ReLU, (2, 6, 19)), {"u": (3, ntk.value), "v": (5, ntk.value)}),
    SweepCase("one_layer", lambda: mlp(nn.Tanh, (2, 1)), ragged(3)),
    SweepCase("width_50", lambda: mlp(nn.Tanh, (2, 50, 50, 50, 1)), ragged(3)),
    SweepCase("width_100", lambda: mlp(nn.Tanh, (2, 100, 100, 1)), {"u": (9, ntk.value), "r": (5, wave)}),
    SweepCase("width_128", lambda: mlp(ntk.Sin, (2, 128, 128, 1)), {"u_t": (9, u_t), "r": (5, wave)}),
    SweepCase("wide_ends", lambda: mlp(nn.Tanh, (128, 3, 17)), {"u": (2, ntk.value)}, 128),
    SweepCase("six_channels", lambda: mlp(nn.Tanh, (4, 19, 20, 1)), {"r": (11, laplacian4), "u": (70, ntk.value)}, 4),
    SweepCase("frozen_weights", lambda: mlp(nn.Tanh, (2, 9, 8, 7, 1)), ragged(), wrt=["3.bias", "5.weight"]),
    SweepCase("many_layers", lambda: mlp(nn.Tanh, (2, *[4] * 10, 1)), ragged(3)),
    SweepCase("many_channels", lambda: mlp(nn.Tanh, (DIMENSIONS, 9, 1)), {"r": (2, wide_laplacian)}, DIMENSIONS),
]
BY_NAME = {case.name: case for case in CASES}
# For the slower ways to run.
FEW = [BY_NAME[name] for name in ("odd_widths", "leading_activation", "frozen_weights", "one_point")]


@dataclass(frozen=True)
class Made:
    """A case in one floating type, and what the CPU makes of it."""

    chain: Chain
    args: ChainArgs
    groups: GroupArgs
    out: Tensor
    A: Tensor
    Z: Tensor
    seeds: list[Tensor]
    D: Tensor


def make(case: SweepCase, dtype: torch.dtype) -> Made:
    net = randomized(case.net()).to(dtype)
    points = {
        name: (uniform(n, case.columns, seed).to(dtype), residual)
        for seed, (name, (n, residual)) in enumerate(case.groups.items())
    }
    chain, args = chain_args(net, case.wrt)
    groups = group_args(chain, points)
    like, widths = args.parameters[0], chain.widths
    out = like.new_zeros(groups.rows * chain.out_features)
    A, Z = like.new_zeros(groups.rows * sum(widths[:-1])), like.new_zeros(stash_size(chain, groups.rows))
    D = like.new_full((groups.cotangent_rows * sum(widths[1:]),), torch.nan)  # stays below the first active layer
    if groups.rows:
        _ops.jet_forward(args, groups, out, A, Z)
    parts = groups.outputs(out, chain.out_features)
    seeds = [seed for r, part in zip(groups.recordings, parts, strict=True) for seed in r.seeds(part)]
    _ops.jet_backward(args, groups, seeds, Z, D)
    return Made(chain, args, groups, out, A, Z, seeds, D)


def unwritten(like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan)


def close(actual: Tensor, expected: Tensor, what: object = "", dtype: torch.dtype | None = None) -> None:
    """Norm-wise; what is not written is NaN in both."""
    assert torch.equal(actual.isnan(), expected.isnan()), what
    error = (actual.double() - expected.double()).nan_to_num().norm()
    tolerance = TOLERANCE[dtype or expected.dtype]
    assert error <= tolerance * expected.double().nan_to_num().norm(), (
        f"{what}: {float(error):.2e} of {float(expected.norm()):.2e}"
    )
