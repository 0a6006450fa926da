"""The gradient of a weighted loss, and the traces of its kernels, from one sweep that keeps no factors."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from . import _ops
from .chain import Chain
from .factors import gradients_for
from .residual import value
from .snapshot import Workspace, as_workspace, sweep
from .sweep import ChainArgs, GroupArgs, Groups, as_groups, chain_args, group_args


@dataclass(frozen=True)
class LossGradient:
    """What ``ntk.loss_gradient`` found.

    Attributes:
        losses: mean of the squared rows of each group, 0-d, not yet weighted.
        gradient: of the weighted loss, by parameter name.
        rows: all residual rows, (N,), group after group.
        traces: tr K of each group, 0-d; None if not asked for.

    Example:
        >>> import torch, ntkfast as ntk
        >>> found = ntk.loss_gradient(ntk.MLP([2, 8, 1]), {"u": (torch.rand(5, 2), ntk.value)}, traces=True)
        >>> list(found.losses), found.rows.shape, list(found.traces), list(found.gradient)[0]
        (['u'], torch.Size([5]), ['u'], '0.weight')
    """

    losses: dict[str, Tensor]
    gradient: dict[str, Tensor]
    rows: Tensor
    traces: dict[str, Tensor] | None


def loss_gradient(
    net: nn.Module,
    groups: Groups,
    weights: Mapping[str, float | Tensor] | None = None,
    *,
    traces: bool = False,
    out: Mapping[str, Tensor] | None = None,
    workspace: Workspace | None = None,
) -> LossGradient:
    """The gradient of Σ_g λ_g mean(r_g²) over groups of residual rows, without an autograd graph.

    ∇ = Jᵀx,  x_i = 2 λ_g(i) r_i / n_g(i)

    Args:
        net: a native network (`ntk.MLP` or a plain ``nn.Sequential``), float32 or float64.
        groups: {name: (points (n, d), residual)}.
        weights: λ by group, numbers or 0-d tensors; None: 1 for all of them.
        traces: find the traces of the groups' kernels too, from the same sweep.
        out: contiguous tensors to write the gradient into, by parameter name; otherwise they are made.
        workspace: buffers to reuse where a residual is not linear.

    Returns:
        Losses, gradient, rows and traces, detached.

    Raises:
        ValueError: points, residuals, weights or ``out`` that do not fit, no group, or one without rows.
        TypeError: arguments of a wrong type.

    Cost:
        6 n C Σ n_in n_out flops for n points with C channels: a third each for the way there, the way back and the
        gradient. The components of a linear residual go back together on a CPU, and where traces are asked for each
        once more; those of others, or on a GPU, have ways of their own. For linear residuals on a CPU O(P) numbers a
        thread beside the result, otherwise n C Σ (n_in + 2 n_out).

    Reference:
        Wang, Yu, Perdikaris, *When and why PINNs fail to train*, 2022, equations 6.5 and 6.6, for what the traces are
        good for.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> found = ntk.loss_gradient(net, {"u": (torch.tensor([[3.0, 4.0]]), ntk.value)}, {"u": 2.0})
        >>> bool(torch.allclose(found.gradient["0.weight"], 4 * found.rows * torch.tensor([[3.0, 4.0]])))
        True
    """
    if not isinstance(groups, Mapping):
        raise TypeError(f"loss_gradient: expected a dict of groups, got {type(groups).__name__}")
    if not as_groups(groups, value)[0]:
        raise ValueError("loss_gradient: expected at least one group, got none")
    chain, args = chain_args(net)
    prepared = group_args(chain, groups)
    for name, own in prepared.slices.items():
        if own.start == own.stop:
            raise ValueError(f"loss_gradient: expected at least one row in group {name!r}, got 0")
    pull = _pull(prepared, weights, chain)
    grads = gradients_for("loss_gradient", chain.parameters(args.selected), out)
    with torch.no_grad():
        rows, diag = pulled_sweep(chain, args, prepared, pull, None, grads, traces, as_workspace(workspace))
    if out is not None:
        increment_version(list(grads.values()))
    return LossGradient(
        {name: rows[own].square().mean() for name, own in prepared.slices.items()},
        grads,
        rows,
        None if diag is None else {n: diag[:, own].sum().to(chain.dtype) for n, own in prepared.slices.items()},
    )


def _pull(groups: GroupArgs, weights: Mapping[str, float | Tensor] | None, chain: Chain) -> Tensor:
    """2 λ / n of every row, (N,)."""
    if weights is not None and (not isinstance(weights, Mapping) or set(weights) != set(groups.names)):
        got = tuple(weights) if isinstance(weights, Mapping) else type(weights).__name__
        raise ValueError(f"loss_gradient: expected weights for exactly the groups {groups.names}, got {got}")
    pull = torch.empty(groups.residual_rows, dtype=chain.dtype, device=chain.device)
    for name, own in groups.slices.items():
        weight = 1.0 if weights is None else weights[name]
        if not isinstance(weight, numbers.Real | Tensor):
            raise TypeError(f"loss_gradient: expected a number or a 0-d tensor for group {name!r}, got {weight!r}")
        if not isinstance(weight, Tensor) and not math.isfinite(weight):
            raise ValueError(f"loss_gradient: expected a finite weight for group {name!r}, got {weight}")
        if isinstance(weight, Tensor) and weight.ndim:
            raise ValueError(f"loss_gradient: expected a 0-d weight for group {name!r}, got {tuple(weight.shape)}")
        share = 2 / (own.stop - own.start)
        pull[own] = (weight.detach().to(pull) if isinstance(weight, Tensor) else float(weight)) * share
    return pull


def pulled_sweep(
    chain: Chain,
    args: ChainArgs,
    groups: GroupArgs,
    pull: Tensor,
    targets: Tensor | None,
    grads: Mapping[str, Tensor],
    diag: bool,
    workspace: Workspace,
) -> tuple[Tensor, Tensor | None]:
    """Rows less their targets, Jᵀ(pull ∘ rows) into ``grads``, and the diagonal of K by layers, (layers, N), if asked.

    Linear residuals take one operator, on a CPU tile by tile through forward sweep, rows, backward sweep and gradient.
    Others know their seeds only from all output channels, and go by way of stored factors.
    """
    nothing = pull.new_empty(0)
    into = chain.in_order(grads, args.selected, nothing)
    if not groups.linear:
        made = sweep(chain, args, groups, workspace)
        rows = made.values if targets is None else made.values - targets
        _ops.vjp(args, groups.spec, made.A, made.D, pull * rows, into)
        return rows, made.layer_diag() if diag else None
    seeds = [seed for recording in groups.recordings for seed in recording.seeds()]
    rows = torch.empty_like(pull)
    size = (len(chain.layers), pull.numel()) if diag else (0,)
    found = torch.empty(size, dtype=torch.float64, device=chain.device)
    offset = groups.offset(targets)
    offset = nothing if offset is None else offset
    _ops.linear_sweep(args, groups, seeds, offset, pull, 0, rows, into, found, nothing, nothing)
    return rows, found if diag else None
