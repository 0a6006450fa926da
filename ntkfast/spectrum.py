"""All eigenvalues of the neural tangent kernel."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .gram import gram
from .residual import value

Groups = Mapping[str, tuple[Tensor, Any]]


def spectrum(
    net: nn.Module,
    points: Tensor | Groups,
    residual: Any = value,
    *,
    wrt: str | Sequence[str] | None = None,
    memory: int | str | None = None,
) -> Tensor:
    """Return the eigenvalues μ₁ ≥ … ≥ μ_N of K = J Jᵀ, computed in float64 from end to end.

    Eigenvalues far below μ₁ decide how slowly a network learns a mode and drown in float32 at μ₁ · 1e-7; so the network
    (a copy of it), the points and the gram are taken to float64, whatever the parameters are. Values below about 1e-16
    μ₁ are rounding, and may be negative.

    Args:
        net: a native network.
        points: (n, d), in the units of the problem; or a dict of groups, for the spectrum of the joint kernel.
        residual: what the rows are; the outputs themselves by default.
        wrt: fnmatch patterns on parameter names; all trainable parameters if None.
        memory: bytes, or text such as "256MB", that bound the workspaces.

    Returns:
        (N,), float64, descending, on the network's device.

    Raises:
        ValueError: what ``ntk.gram`` refuses.

    Cost: a gram in float64 and 4/3 N³ flops; N² · 8 bytes.

    Reference:
        Wang, Yu, Perdikaris: When and why PINNs fail to train, J. Comput. Phys. 449 (2022), section 4.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> net = ntk.MLP([2, 16, 1])
        >>> ntk.spectrum(net, torch.rand(5, 2)).shape
        torch.Size([5])
    """
    net, points = in_float64(net, points)
    if isinstance(points, Mapping):
        K = gram(net, points, wrt=wrt, memory=memory)
    else:
        K = gram(net, points, residual, wrt=wrt, memory=memory)
    return torch.linalg.eigvalsh(K).flip(0)


def in_float64(net: nn.Module, points: Any) -> tuple[nn.Module, Any]:
    """Return a copy of the network and its points (or groups) in float64; the caller's own stay as they are."""
    net = copy.deepcopy(net).double()
    if isinstance(points, Mapping):
        return net, {name: (_double(x), residual) for name, (x, residual) in points.items()}
    return net, _double(points)


def _double(points: Any) -> Any:
    return points.detach().double() if isinstance(points, Tensor) else points.to(dtype=torch.float64)
