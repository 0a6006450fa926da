"""The diagonal of the NTK by a streaming sweep: neither the Jacobian nor the factors are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .residual import Residual, value
from .streaming import by_block, streaming_diag
from .sweep import as_groups, chain_args, group_args


def diag(
    net: nn.Module,
    points: Any,
    residual: Residual = value,
    *,
    per_block: bool = False,
    wrt: str | Sequence[str] | None = None,
    memory: int | str | None = None,
) -> Any:
    """The diagonal of the neural tangent kernel, K_ii = ‖∂r_i/∂θ‖².

    K_ii = Σ_layers Σ_cc' ⟨D_i⁽ᶜ⁾, D_i⁽ᶜ'⁾⟩ ⟨A_i⁽ᶜ⁾, A_i⁽ᶜ'⁾⟩ + ‖D_i⁽⁰⁾‖²

    Args:
        net: a native network (`ntk.MLP` or a plain ``nn.Sequential``), float32 or float64.
        points: (n, d) in raw coordinates, of the network's dtype and device; or a dict of groups (points, residual).
        residual: the residual; `ntk.value` takes all outputs. Not used with a dict of groups.
        per_block: one diagonal for each layer, by module name.
        wrt: fnmatch patterns on parameter names; None: all that require grad.
        memory: a budget for workspaces, bytes or ``"256MB"``. Coefficients that vary from point to point come on top.

    Returns:
        (n·k,), detached, rows point-major; with a dict of groups a dict by group; with `per_block` a dict by module
        name inside.

    Raises:
        ValueError: points, residual or network that do not fit, or a budget below one tile.
        TypeError: arguments of a wrong type.

    Cost:
        One forward and one backward sweep, 4 n C Σ n_in n_out flops; a tile a thread, and O(n) numbers.

    Reference:
        Wang, Yu, Perdikaris, *When and why PINNs fail to train*, 2022, section 3.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> ntk.diag(net, torch.tensor([[3.0, 4.0]]))
        tensor([26.])
    """
    groups, several = as_groups(points, residual)
    chain, args = chain_args(net, wrt)
    prepared = group_args(chain, groups)
    layers = streaming_diag(chain, args, prepared, memory, per_block, chain.dtype)
    parts = {name: by_block(chain, args, layers[:, rows], per_block) for name, rows in prepared.slices.items()}
    return parts if several else parts[""]
