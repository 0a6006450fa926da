"""Residual rows as autograd tensors: differentiable in θ once, by Jᵀx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Vjp = Callable[[Tensor], dict[str, Tensor]]


class _Rows(torch.autograd.Function):
    """Rows whose backward is Jᵀx. Where it sweeps again, what it reads then is watched for changes in place."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, vjp: Vjp, names: tuple[str, ...], watch: bool, *tensors: Tensor) -> Tensor:
        ctx.vjp, ctx.names, ctx.others = vjp, names, len(tensors) - len(names)
        if watch:
            ctx.save_for_backward(*tensors)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "residual rows are differentiable in the parameters once: expected backward() without create_graph=True"
            )
        _ = ctx.saved_tensors  # raises if one was changed in place meanwhile
        found = ctx.vjp(grads[0])
        return None, None, None, None, *(found[name] for name in ctx.names), *[None] * ctx.others


def attach(values: Tensor, parameters: dict[str, Tensor], vjp: Vjp) -> Tensor:
    """Rows of a snapshot: the backward uses its factors, whatever became of θ."""
    rows: Tensor = _Rows.apply(values, vjp, tuple(parameters), False, *parameters.values())  # type: ignore[assignment]
    return rows


def attach_forward(values: Tensor, parameters: dict[str, Tensor], others: list[Tensor], vjp: Vjp) -> Tensor:
    """Rows of a forward sweep: the backward sweeps again, so neither θ nor the other tensors may have changed."""
    watched = (*parameters.values(), *others)
    rows: Tensor = _Rows.apply(values, vjp, tuple(parameters), True, *watched)  # type: ignore[assignment]
    return rows
