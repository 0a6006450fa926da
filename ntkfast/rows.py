"""Residual rows as autograd tensors: differentiable in θ once, by Jᵀx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Vjp = Callable[[Tensor], dict[str, Tensor]]


class _Rows(torch.autograd.Function):
    """Rows whose backward is Jᵀx. The parameters are saved only where the backward still needs them (`keep`)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, vjp: Vjp, names: tuple[str, ...], keep: bool, *parameters: Tensor) -> Tensor:
        ctx.vjp, ctx.names = vjp, names
        if keep:
            ctx.save_for_backward(*parameters)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "residual rows are differentiable in the parameters once: expected backward() without create_graph=True"
            )
        _ = ctx.saved_tensors  # raises if a parameter was changed in place meanwhile
        found = ctx.vjp(grads[0])
        return None, None, None, None, *(found[name] for name in ctx.names)


def attach(values: Tensor, parameters: dict[str, Tensor], vjp: Vjp) -> Tensor:
    """Rows of a snapshot: the backward uses its factors, whatever became of θ."""
    rows: Tensor = _Rows.apply(values, vjp, tuple(parameters), False, *parameters.values())  # type: ignore[assignment]
    return rows


def attach_forward(values: Tensor, parameters: dict[str, Tensor], vjp: Vjp) -> Tensor:
    """Rows of a forward sweep: the backward sweeps again, so θ must not have changed."""
    rows: Tensor = _Rows.apply(values, vjp, tuple(parameters), True, *parameters.values())  # type: ignore[assignment]
    return rows
