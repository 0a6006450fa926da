"""The NTK as a matrix, K = J J'ᵀ, by tiles of factors; the Jacobian is never formed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .assembly import assemble
from .contraction import METHODS
from .memory import parse_memory
from .precision import cast_groups, cast_network
from .residual import Residual, value
from .sweep import ChainArgs, GroupArgs, as_groups, chain_args, group_args


def gram(
    net: nn.Module,
    x: Any,
    residual: Residual = value,
    y: Any = None,
    residual_y: Residual | None = None,
    *,
    wrt: str | Sequence[str] | None = None,
    sum_components: bool = False,
    per_block: bool = False,
    method: str = "auto",
    memory: int | str | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Any:
    """The neural tangent kernel K = J(x) J(y)ᵀ of residual rows.

    K = Σ_layers Σ_cc' (D⁽ᶜ⁾D'⁽ᶜ'⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᶜ'⁾ᵀ) + D⁽⁰⁾D'⁽⁰⁾ᵀ

    Args:
        net: a native network (`ntk.MLP` or a plain ``nn.Sequential``), float32 or float64.
        x: (n, d) in raw coordinates, of the network's dtype and device; or a dict of groups (points, residual): the
            joint matrix, in the order of the dict.
        residual: the residual at x; not used with a dict.
        y: the other points, or None: K(x, x), exactly symmetric. A dict of groups if x is one.
        residual_y: the residual at y; None: that of x.
        wrt: fnmatch patterns on parameter names; None: all that require grad.
        sum_components: sum over the k components of a point: Σ_j K[(i, j), (i', j)], (n, m).
        per_block: one matrix for each layer, by module name; they add up to K.
        method: "structured" (products of small Grams), "explicit" (a layer's Jacobian, a chunk at a time), or "auto":
            for each layer the cheaper one.
        memory: a budget for the factors and workspaces, bytes or ``"256MB"``; it changes no bit of K. The workspaces of
            the threads come on top where the budget has no room for them and two pieces of 32 points both.
        dtype: compute in another precision than the network's; Gauss–Newton needs float64.
        out: a contiguous tensor to write K into.

    Returns:
        (n·k, m·k'), detached, rows point-major; with `per_block` a dict of such by module name.

    Raises:
        ValueError: arguments that do not fit each other, or a budget below the factors and the tile of two pieces of
            8 points.
        TypeError: arguments of a wrong type.

    Cost:
        The sweeps, and for each layer and entry of K C C' (n_in + n_out) multiply–adds (structured) or n_in n_out
        (explicit), half of it if symmetric; the factors and K in memory. On a CPU the k components of a point share
        products of inputs: C C' (n_in/k + n_out). A sum over components takes k of these for each entry, or all k²
        where a layer is explicit.

    Accuracy:
        On processors with AMX, relative to √(K_ii K_jj) rather than to an entry's own terms (README, accuracy).

    Reference:
        Novak, Sohl-Dickstein, Schoenholz, *Fast finite width neural tangent kernel*, 2022, section 3.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> ntk.gram(net, torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        tensor([[26.,  4.],
                [ 4.,  2.]])
    """
    if method not in METHODS:
        raise ValueError(f"gram: expected a method out of {METHODS}, got {method!r}")
    groups, several = as_groups(x, residual)
    symmetric = y is None and (residual_y is None or residual_y is residual)
    other = groups if symmetric else _other_groups(groups, several, residual, y, residual_y)
    if dtype is not None:
        net, groups, other = cast_network(net, dtype), cast_groups(groups, dtype), cast_groups(other, dtype)
    chain, args = chain_args(net, wrt)
    budget = parse_memory(memory)
    sides = (group_args(chain, groups), None if symmetric else group_args(chain, other))
    summed = _components(*sides) if sum_components else 1
    if not per_block:
        return assemble(chain, args, *sides, method, budget, out, summed)
    if out is not None:
        raise ValueError("gram: expected no out= with per_block=True, got one")
    found = {}
    for i, layer in enumerate(chain.layers):
        if any(args.active(i)):
            found[layer.name] = assemble(chain, _only_layer(args, i), *sides, method, budget, None, summed)
    return found


def _other_groups(
    groups: dict[str, Any], several: bool, residual: Residual, y: Any, residual_y: Residual | None
) -> Any:
    if several and (residual_y is not None or not isinstance(y, Mapping)):
        got = type(y).__name__ if residual_y is None else "a residual_y"
        raise ValueError(f"gram: expected y to be a dict of groups, as x is, and no residual_y, got {got}")
    if not several and isinstance(y, Mapping):
        raise ValueError("gram: expected y to be points, as x is, got a dict of groups")
    if y is None:
        y = groups[""][0]
    return as_groups(y, residual if residual_y is None else residual_y)[0]


def _only_layer(args: ChainArgs, layer: int) -> ChainArgs:
    """The same chain with θ in the Jacobian for one layer only."""
    constants, selected = list(args.constants), [(False, False)] * len(args.activations)
    selected[layer] = args.active(layer)
    for i in range(len(args.activations)):
        if i != layer:
            constants[6 * i + 2] = constants[6 * i + 3] = 0.0
    return ChainArgs(args.parameters, args.activations, constants, tuple(selected))


def _components(x: GroupArgs, y: GroupArgs | None) -> int:
    """How many components every residual has."""
    counts = {recording.n_components for side in (x, y) if side is not None for recording in side.recordings}
    if len(counts) != 1:
        raise ValueError(f"sum_components: expected the same number of components everywhere, got {sorted(counts)}")
    return counts.pop()
