"""The trace of the NTK by a streaming sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .residual import Residual, value
from .streaming import by_block, streaming_trace
from .sweep import as_groups, chain_args, group_args


def trace(
    net: nn.Module,
    points: Any,
    residual: Residual = value,
    *,
    per_block: bool = False,
    wrt: str | Sequence[str] | None = None,
    memory: int | str | None = None,
) -> Any:
    """The trace of the neural tangent kernel, tr K = Σ_i ‖∂r_i/∂θ‖²; a plain sum over rows.

    tr K = Σ_i Σ_layers Σ_cc' ⟨D_i⁽ᶜ⁾, D_i⁽ᶜ'⁾⟩ ⟨A_i⁽ᶜ⁾, A_i⁽ᶜ'⁾⟩ + ‖D_i⁽⁰⁾‖²

    Args:
        net: a native network (`ntk.MLP` or a plain ``nn.Sequential``), float32 or float64.
        points: (n, d) in raw coordinates, of the network's dtype and device; or a dict of groups (points, residual).
        residual: the residual; `ntk.value` takes all outputs. Not used with a dict of groups.
        per_block: one trace for each layer, by module name; they add up to the trace.
        wrt: fnmatch patterns on parameter names; None: all that require grad.
        memory: a budget for workspaces, bytes or ``"256MB"``. Coefficients that vary from point to point come on top.

    Returns:
        A detached 0-d tensor of the parameters' dtype, accumulated in float64; with a dict of groups a dict by group;
        with `per_block` a dict by module name inside. Zero for an empty set.

    Raises:
        ValueError: points, residual or network that do not fit, or a budget below one tile.
        TypeError: arguments of a wrong type.

    Cost:
        One forward and one backward sweep, 4 n C Σ n_in n_out flops; memory of a tile a thread, for any n.

    Reference:
        Wang, Yu, Perdikaris, *When and why PINNs fail to train*, 2022, equation 6.5.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> ntk.trace(net, torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor(27.)
    """
    groups, several = as_groups(points, residual)
    chain, args = chain_args(net, wrt)
    sums = streaming_trace(chain, args, group_args(chain, groups), memory)
    parts = {name: by_block(chain, args, layers, per_block) for name, layers in sums.items()}
    return parts if several else parts[""]
