"""One ``backward`` per residual row: the Jacobian as early NTK codes for physics-informed networks form it.

``shared`` differentiates one graph of all points, row after row, as those codes do: every backward runs through the
whole batch. ``single`` builds a graph per point, which is cheaper for wide networks. The faster one counts.
"""

from __future__ import annotations

import torch
from setting import SPEED
from torch import Tensor, nn


def wave_rows(net: nn.Module, points: Tensor) -> Tensor:
    """u_tt − c² u_xx by nested reverse mode, (n,), connected to the parameters."""
    x = points.detach().requires_grad_()
    (du,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (dt,) = torch.autograd.grad(du[:, 0].sum(), x, create_graph=True)
    (dx,) = torch.autograd.grad(du[:, 1].sum(), x, create_graph=True)
    return dt[:, 0] - SPEED**2 * dx[:, 1]


def _jacobian_row(row: Tensor, parameters: list[Tensor], retain: bool) -> tuple[Tensor, ...]:
    return torch.autograd.grad(row, parameters, retain_graph=retain, materialize_grads=True, allow_unused=True)


def diag_shared(net: nn.Module, points: Tensor) -> Tensor:
    """K_ii, (n,), from one graph of all points."""
    parameters = list(net.parameters())
    rows = wave_rows(net, points)
    return torch.stack([sum(g.square().sum() for g in _jacobian_row(r, parameters, True)) for r in rows])


def diag_single(net: nn.Module, points: Tensor) -> Tensor:
    """K_ii, (n,), from one graph per point."""
    parameters = list(net.parameters())
    rows = (wave_rows(net, x[None])[0] for x in points)
    return torch.stack([sum(g.square().sum() for g in _jacobian_row(r, parameters, False)) for r in rows])


def gram(net: nn.Module, points: Tensor, shared: bool = False) -> Tensor:
    """K = J Jᵀ from a Jacobian that is filled row by row."""
    parameters = list(net.parameters())
    jacobian = points.new_empty(len(points), sum(p.numel() for p in parameters))
    rows = wave_rows(net, points) if shared else (wave_rows(net, x[None])[0] for x in points)
    for target, row in zip(jacobian, rows, strict=True):
        torch.cat([g.flatten() for g in _jacobian_row(row, parameters, shared)], out=target)
    return jacobian @ jacobian.t()


def trace(net: nn.Module, points: Tensor, shared: bool = False) -> Tensor:
    """tr K."""
    return (diag_shared if shared else diag_single)(net, points).sum(dtype=torch.float64)
