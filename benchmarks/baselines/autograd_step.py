"""A training step of the wave problem by nested autograd: loss Σ_g λ_g mean(r²) over three groups, and its gradient.

Three ways to write it; the fastest one counts.
"""

from __future__ import annotations

import torch
from setting import SPEED
from torch import Tensor, nn
from torch.func import functional_call, jvp

from .per_row import wave_rows

Step = tuple[Tensor, list[Tensor]]


def _finish(net: nn.Module, rows: dict[str, Tensor], weights: dict[str, float]) -> Step:
    loss = sum(weights[name] * r.square().mean() for name, r in rows.items())
    return loss.detach(), list(torch.autograd.grad(loss, list(net.parameters())))


def separate(net: nn.Module, points: dict[str, Tensor], weights: dict[str, float]) -> Step:
    """Reverse mode inside reverse mode, one forward pass per group: what most codes do."""
    start = points["ut"].detach().requires_grad_()
    (du,) = torch.autograd.grad(net(start).sum(), start, create_graph=True)
    rows = {"u": net(points["u"])[:, 0], "ut": du[:, 0], "r": wave_rows(net, points["r"])}
    return _finish(net, rows, weights)


def packed(net: nn.Module, points: dict[str, Tensor], weights: dict[str, float]) -> Step:
    """Reverse mode inside reverse mode, one forward pass for all groups: fewer and larger operations."""
    n_u, n_ut = len(points["u"]), len(points["ut"])
    x = torch.cat([points["ut"], points["r"]]).detach().requires_grad_()
    out = net(torch.cat([points["u"], x]))[:, 0]
    (du,) = torch.autograd.grad(out[n_u:].sum(), x, create_graph=True)
    (dt,) = torch.autograd.grad(du[n_ut:, 0].sum(), x, create_graph=True)
    (dx,) = torch.autograd.grad(du[n_ut:, 1].sum(), x, create_graph=True)
    rows = {"u": out[:n_u], "ut": du[:n_ut, 0], "r": dt[n_ut:, 0] - SPEED**2 * dx[n_ut:, 1]}
    return _finish(net, rows, weights)


def forward_mode(net: nn.Module, points: dict[str, Tensor], weights: dict[str, float]) -> Step:
    """Forward mode inside forward mode for the derivatives in t and x, reverse mode for the gradient."""
    parameters = dict(net.named_parameters())

    def u(x: Tensor) -> Tensor:
        return functional_call(net, parameters, (x,))[:, 0]

    def along(x: Tensor, k: int) -> Tensor:
        e = torch.zeros_like(x)
        e[:, k] = 1.0
        return jvp(lambda y: jvp(u, (y,), (e,))[1], (x,), (e,))[1]

    start, inside = points["ut"], points["r"]
    e_t = torch.zeros_like(start)
    e_t[:, 0] = 1.0
    rows = {"u": u(points["u"]), "ut": jvp(u, (start,), (e_t,))[1], "r": along(inside, 0) - SPEED**2 * along(inside, 1)}
    return _finish(net, rows, weights)


REVERSE = {"separate": separate, "packed": packed}
ALL = {**REVERSE, "forward-mode": forward_mode}
