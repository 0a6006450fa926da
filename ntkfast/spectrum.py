"""All eigenvalues of the neural tangent kernel, and what they say about training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .gram import gram
from .operator import check_kernel
from .residual import Residual, value


def spectrum(
    net: nn.Module,
    points: Any,
    residual: Residual = value,
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
        ValueError: what ``ntk.gram`` refuses, or a kernel that is not finite.
        TypeError: arguments of a wrong type.

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
    K = gram(net, points, residual, wrt=wrt, memory=memory, dtype=torch.float64)
    check_kernel("spectrum", K)
    return torch.linalg.eigvalsh(K).flip(0)


def condition_number(eigenvalues: Tensor) -> float:
    """Return how much slower the slowest mode is learned than the fastest, κ = μ_max/μ_min.

    Args:
        eigenvalues: (N,), in any order, as `ntk.spectrum` returns them.

    Returns:
        κ ≥ 1; infinity where the smallest eigenvalue is not positive (rounding: below about 1e-16 μ_max).

    Raises:
        TypeError: no tensor.
        ValueError: not (N,) with N ≥ 1, or not finite.

    Cost: O(N).

    Example:
        >>> import torch, ntkfast as ntk
        >>> ntk.condition_number(torch.tensor([8.0, 2.0, 0.5]))
        16.0
    """
    _check_eigenvalues("condition_number", eigenvalues)
    least, most = float(eigenvalues.min()), float(eigenvalues.max())
    return most / least if least > 0 else math.inf


def effective_rank(eigenvalues: Tensor) -> float:
    """Return the number of modes that share the trace, exp(−Σ p_i log p_i) with p_i = μ_i / Σ μ.

    Args:
        eigenvalues: (N,), in any order, as `ntk.spectrum` returns them; negative ones (rounding) count as zero.

    Returns:
        A number from 1 (one mode has it all) to N (all are equal).

    Raises:
        TypeError: no tensor.
        ValueError: not (N,) with N ≥ 1, not finite, or none positive.

    Cost: O(N).

    Reference:
        Roy, Vetterli, *The effective rank: a measure of effective dimensionality*, 2007, definition 1.

    Example:
        >>> import torch, ntkfast as ntk
        >>> round(ntk.effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])), 6)
        3.0
    """
    _check_eigenvalues("effective_rank", eigenvalues)
    positive = eigenvalues.detach().double().clamp(min=0)
    if not positive.max() > 0:
        raise ValueError("effective_rank: expected at least one positive eigenvalue, got none")
    positive = positive / positive.max()  # their sum may be beyond the largest number
    p = positive / positive.sum()
    return float(torch.special.entr(p).sum().exp())


def mode_decay(eigenvalues: Tensor, lr: float, steps: float | Tensor) -> Tensor:
    """Return what gradient flow leaves of each error mode, exp(−2 η μ_i t).

    With the loss Σ r² and a frozen kernel, dr/dt = −2 η K r: the component of r along eigenvector i shrinks by this
    factor. For a mean over N rows take η/N.

    Args:
        eigenvalues: (N,), as `ntk.spectrum` returns them.
        lr: η, the learning rate of plain gradient descent.
        steps: t, a number of steps or a tensor (T,) of them.

    Returns:
        (N,), or (T, N) for a tensor of steps; float64.

    Raises:
        TypeError: no tensor of eigenvalues.
        ValueError: eigenvalues that are not (N,) or not finite, a negative learning rate or number of steps.

    Cost: O(T N).

    Reference:
        Wang, Yu, Perdikaris, *When and why PINNs fail to train*, 2022, equation 4.6.

    Example:
        >>> import torch, ntkfast as ntk
        >>> ntk.mode_decay(torch.tensor([1.0, 0.0]), lr=0.5, steps=1)
        tensor([0.3679, 1.0000], dtype=torch.float64)
    """
    _check_eigenvalues("mode_decay", eigenvalues)
    time = torch.as_tensor(steps, dtype=torch.float64, device=eigenvalues.device)
    if not lr >= 0 or not bool((time >= 0).all()):
        raise ValueError(f"mode_decay: expected lr and steps of at least 0, got lr={lr} and steps={steps}")
    rates = -2.0 * lr * eigenvalues.detach().double()
    return torch.exp(torch.where(rates == 0, 0.0, time[..., None] * rates))  # infinite time leaves a null mode alone


def _check_eigenvalues(name: str, eigenvalues: object) -> None:
    if not isinstance(eigenvalues, Tensor):
        raise TypeError(f"{name}: expected a tensor of eigenvalues, got {type(eigenvalues).__name__}")
    if eigenvalues.is_complex():
        raise TypeError(f"{name}: expected real eigenvalues, got {eigenvalues.dtype}")
    if eigenvalues.ndim != 1 or eigenvalues.numel() == 0:
        raise ValueError(f"{name}: expected eigenvalues of shape (N,) with N ≥ 1, got {tuple(eigenvalues.shape)}")
    if not bool(eigenvalues.isfinite().all()):
        raise ValueError(f"{name}: expected finite eigenvalues, got NaN or infinity")
