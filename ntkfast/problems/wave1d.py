"""The one-dimensional wave equation with fixed ends: the standard test of loss weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..tape import At
from .box import Box
from .condition import Condition
from .problem import Problem


def MultiscaleWave1D(c: float = 10.0, a: float = 2.0) -> Problem:
    """The wave equation with an exact solution for every wave speed; for c = 10, a = 2 the "multiscale" case.

    u_tt = c² u_xx on (t, x) ∈ [0, 1]², u(t, 0) = u(t, 1) = 0, u_t(0, x) = 0, u(0, x) = sin πx + sin aπx;
    exact: u = sin πx cos cπt + sin aπx cos acπt.

    Args:
        c: wave speed.
        a: frequency of the second mode, an integer (otherwise the ends do not stay at rest).

    Returns:
        The problem, with the loss groups of `Wave1D`.

    Raises:
        ValueError: if ``a`` is not an integer.

    Reference: Wang, Yu, Perdikaris, When and why PINNs fail to train: a neural tangent kernel perspective (2022).

    Example:
        >>> import torch, ntkfast as ntk
        >>> ntk.problems.MultiscaleWave1D(c=10.0, a=2.0).solution(torch.tensor([[0.0, 0.25]]))  # sin π/4 + sin π/2
        tensor([1.7071], dtype=torch.float64)
    """
    if not float(a).is_integer():
        raise ValueError(f"MultiscaleWave1D: expected an integer frequency a, so that u(t, 1) = 0, got {a}")
    return _wave(c, ((1.0, 1.0), (1.0, a)))


def Wave1D(c: float = 2.0, a: float = 0.5) -> Problem:
    """The wave equation of the paper that introduced NTK weights.

    u_tt = c² u_xx on (t, x) ∈ [0, 1]², u(t, 0) = u(t, 1) = 0, u_t(0, x) = 0, u(0, x) = sin πx + a sin 2cπx;
    exact, only for c = 2: u = sin πx cos cπt + a sin 2cπx cos 4cπt.

    Args:
        c: wave speed; only 2 satisfies 4c = c · 2c, which the exact solution needs.
        a: amplitude of the second mode.

    Returns:
        The problem, with the loss groups ``u`` (start, left and right end, 100 points each), ``ut`` (on the points of
        the start) and ``r`` (300).

    Raises:
        ValueError: if c is not 2.

    Reference: Wang, Yu, Perdikaris, When and why PINNs fail to train: a neural tangent kernel perspective (2022).

    Example:
        >>> import ntkfast as ntk
        >>> list(ntk.problems.Wave1D().conditions)
        ['start', 'left', 'right', 'r']
    """
    if c != 2:
        raise ValueError(
            f"Wave1D: expected c = 2, as its exact solution solves the equation for no other speed, got c = {c}; "
            f"MultiscaleWave1D(c, a) has one for every c"
        )
    return _wave(c, ((1.0, 1.0), (a, 2 * c)))


def _wave(c: float, modes: tuple[tuple[float, float], ...]) -> Problem:
    """Make the problem whose solution is a sum of standing waves, Σ amplitude · sin(kπx) cos(kcπt)."""

    def exact(at: At) -> Tensor:
        waves = [a * torch.sin(k * math.pi * at.x) * torch.cos(k * c * math.pi * at.t) for a, k in modes]
        return torch.stack(waves).sum(0)

    def start(u, at):
        profile = sum(a * torch.sin(k * math.pi * at.x) for a, k in modes)
        return {"u": u - profile, "ut": u.d(t=1)}

    def wave(u):
        return u.d(t=2) - c**2 * u.d(x=2)

    domain = Box(t=(0, 1), x=(0, 1))
    conditions = {
        "start": Condition(domain.at(t=0), start, n=100),
        "left": Condition(domain.at(x=0), n=100, group="u"),
        "right": Condition(domain.at(x=1), n=100, group="u"),
        "r": Condition(domain, wave, n=300),
    }
    return Problem(domain, conditions, exact)
