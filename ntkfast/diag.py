"""The diagonal of the NTK by a streaming sweep: neither the Jacobian nor the factors are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _ops
from .chain import Chain
from .memory import parse_memory, streaming_plan
from .residual import Residual, value
from .sweep import ChainArgs, GroupArgs, as_groups, chain_args, empty, group_args, lone, part_of


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
        memory: a budget for workspaces, bytes or ``"256MB"``.

    Returns:
        (n·k,), rows point-major; with a dict of groups a dict by group; with `per_block` a dict by module name inside.

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
    layers = streaming_diag(chain, args, prepared, memory)
    parts = {
        name: by_block(chain, args, layers[:, rows], per_block, chain.dtype) for name, rows in prepared.slices.items()
    }
    return parts if several else parts[""]


def by_block(chain: Chain, args: ChainArgs, layers: Tensor, per_block: bool, dtype: torch.dtype) -> Any:
    """Sum (layers, …) in float64 over layers, or name them; frozen layers and inserted identities are left out."""
    if not per_block:
        return layers.sum(0).to(dtype)
    return {layer.name: layers[i].to(dtype) for i, layer in enumerate(chain.layers) if any(args.active(i))}


def streaming_diag(chain: Chain, args: ChainArgs, groups: GroupArgs, memory: int | str | None) -> Tensor:
    """The diagonal by layers, (layers, N) in float64."""
    budget = parse_memory(memory)
    tile_rows, at_once = streaming_plan(chain, groups, budget)
    result = torch.empty(len(chain.layers), groups.residual_rows, dtype=torch.float64)
    for start, part, seeds in chunks(chain, args, groups, at_once):
        if part.residual_rows == groups.residual_rows:
            _ops.diag(args, part, seeds, tile_rows, result)
            break
        piece = torch.empty(len(chain.layers), part.residual_rows, dtype=torch.float64)
        _ops.diag(args, part, seeds, tile_rows, piece)
        result[:, start : start + part.residual_rows] = piece
    return result


def streaming_trace(chain: Chain, args: ChainArgs, groups: GroupArgs, memory: int | str | None) -> dict[str, Tensor]:
    """The trace by layers, (layers,) in float64 for each group; O(1) memory beside a chunk of points."""
    budget = parse_memory(memory)
    tile_rows, at_once = streaming_plan(chain, groups, budget)
    slices, sums = groups.slices, {}
    for _, part, seeds in chunks(chain, args, groups, at_once):
        piece = torch.empty(len(chain.layers), part.residual_rows, dtype=torch.float64)
        _ops.diag(args, part, seeds, tile_rows, piece)
        for name in part.names:
            own = piece[:, slices[name]].sum(1) if len(part.names) > 1 else piece.sum(1)
            sums[name] = sums[name] + own if name in sums else own
    nothing = torch.zeros(len(chain.layers), dtype=torch.float64)
    return {name: sums.get(name, nothing) for name in groups.names}


def chunks(
    chain: Chain, args: ChainArgs, groups: GroupArgs, at_once: int
) -> Iterator[tuple[int, GroupArgs, list[Tensor]]]:
    """Yield (first residual row, groups, seeds) for pieces of at most `at_once` points; one piece if all fit."""
    seeds = [s for i in range(len(groups.names)) for s in known_seeds(chain, args, groups, i)]
    if sum(groups.sizes) <= at_once:
        yield 0, groups, seeds
        return
    row, first = 0, 0
    for i, (n, recording) in enumerate(zip(groups.sizes, groups.recordings, strict=True)):
        group, k = lone(groups, i), recording.n_components
        own = seeds[first : first + k]
        for start in range(0, n, at_once):
            stop = min(start + at_once, n)
            yield row + start * k, part_of(group, start, stop), [s[:, start:stop] for s in own]
        row, first = row + n * k, first + k


def known_seeds(chain: Chain, args: ChainArgs, groups: GroupArgs, i: int) -> list[Tensor]:
    """Seeds of the i-th group; a residual that is not linear first needs the output channels, by a sweep of its own."""
    recording = groups.recordings[i]
    if recording.linear:
        return recording.seeds()
    group = lone(groups, i)
    out = empty(args.parameters[0], group.rows * chain.out_features)
    nothing = out.new_empty(0)
    _ops.jet_forward(args, group, out, nothing, nothing)
    return recording.seeds(group.outputs(out, chain.out_features)[0])


def check_mapping(where: str, given: object) -> Mapping[str, Tensor]:
    """Return a dict of tensors by parameter name, or say what came instead."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}: expected a dict of tensors by parameter name, got {type(given).__name__}")
    return given
