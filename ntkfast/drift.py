"""How far training has moved: the kernel, and the parameters, against a copy of the network from before."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .chain import Chain, chain_of
from .contraction import contract
from .memory import FACTOR_BYTES, LEAST_POINTS, factor_bytes, parse_memory
from .precision import cast_groups, cast_network
from .residual import Residual, value
from .snapshot import Snapshot, Workspace, sweep
from .streaming import chunks
from .sweep import ChainArgs, GroupArgs, as_groups, chain_args, group_args, lone

_TILE_POINTS = 256


def kernel_drift(
    net: nn.Module,
    start: nn.Module,
    points: Any,
    residual: Residual = value,
    *,
    wrt: str | Sequence[str] | None = None,
    memory: int | str | None = None,
) -> Tensor:
    """Return how far the kernel is from that of the network at the start, ‖K − K₀‖_F / ‖K₀‖_F.

    Both kernels are computed in float64, a tile at a time; neither is ever held.

    Args:
        net: the network now.
        start: the network then, such as a ``copy.deepcopy`` made before training; of the same sizes.
        points: (n, d), in the units of the problem; or a dict of groups (points, residual), for the joint kernel.
        residual: what the rows are; not used with a dict of groups.
        wrt: fnmatch patterns on parameter names; None: all of ``net`` that require grad.
        memory: a budget for factors and tiles, bytes or ``"256MB"``; None: 1 GiB.

    Returns:
        0-d, float64. Zero for an empty set; infinite where K₀ is zero and K is not.

    Raises:
        ValueError: what ``ntk.gram`` refuses, networks of different sizes, or a budget below four pieces of 8 points.
        TypeError: arguments of a wrong type.

    Cost: two grams in float64; where the factors exceed the budget, sweeps for every tile.

    Reference:
        Wang, Yu, Perdikaris, *When and why PINNs fail to train*, 2022, section 4.

    Example:
        >>> import copy, torch, ntkfast as ntk
        >>> net = ntk.MLP([2, 16, 1])
        >>> ntk.kernel_drift(net, copy.deepcopy(net), torch.rand(5, 2))
        tensor(0., dtype=torch.float64)
    """
    sides = [_Side.of(network, points, residual, wrt) for network in (net, _alike(net, start))]
    now, then = (side.chain.widths for side in sides)
    if now != then:
        raise ValueError(f"kernel_drift: expected networks of the same sizes, got {now} and {then}")
    budget = parse_memory(memory) or FACTOR_BYTES
    change = size = 0.0
    for now, then, weight in _tiles(sides, budget):
        change = math.hypot(change, math.sqrt(weight) * _norm(now - then))
        size = math.hypot(size, math.sqrt(weight) * _norm(then))
    return _relative(change, size)


def parameter_drift(net: nn.Module, start: nn.Module) -> Tensor:
    """Return how far the parameters are from those at the start, ‖θ − θ₀‖₂ / ‖θ₀‖₂.

    Args:
        net: the network now.
        start: the network then, with parameters of the same names and shapes.

    Returns:
        0-d, float64; over all parameters, frozen ones too. Infinite where θ₀ is zero and θ is not.

    Raises:
        TypeError: no networks.
        ValueError: parameters of other names or shapes.

    Cost: O(P).

    Example:
        >>> import copy, ntkfast as ntk
        >>> net = ntk.MLP([2, 16, 1])
        >>> ntk.parameter_drift(net, copy.deepcopy(net))
        tensor(0., dtype=torch.float64)
    """
    for network in (net, start):
        if not isinstance(network, nn.Module):
            raise TypeError(f"parameter_drift: expected networks (torch.nn.Module), got {type(network).__name__}")
    now, then = dict(net.named_parameters()), dict(start.named_parameters())
    shapes = [{name: tuple(p.shape) for name, p in side.items()} for side in (now, then)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"parameter_drift: expected parameters of the same shapes, got {shapes[0]} and {shapes[1]}")
    change = math.hypot(*(_norm(p.detach().double() - then[name].detach().double()) for name, p in now.items()))
    size = math.hypot(*(_norm(p.detach().double()) for p in then.values()))
    return _relative(change, size)


def _norm(x: Tensor) -> float:
    """‖x‖₂ of any shape, also where the squares of its numbers are beyond the smallest or the largest one."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float((x / largest).square().sum()))


def _relative(change: float, size: float) -> Tensor:
    # NaN passes.
    both = torch.tensor([change, size], dtype=torch.float64, device="cpu")
    return both[0] / both[1] if change != 0 else torch.zeros_like(both[0])


def _alike(net: nn.Module, start: nn.Module) -> nn.Module:
    """The network at the start, its parameters frozen where those of the network now are: often it is a frozen copy."""
    for network in (net, start):  # before a copy fails for reasons of its own
        chain_of(network)
    asked = {name: p.requires_grad for name, p in net.named_parameters()}
    start = copy.deepcopy(start)
    for name, p in start.named_parameters():
        p.requires_grad_(asked.get(name, p.requires_grad))
    return start


class _Side:
    """One of the two networks on the points, cut into pieces."""

    def __init__(self, chain: Chain, args: ChainArgs, groups: GroupArgs) -> None:
        self.chain, self.args, self.groups = chain, args, groups

    @staticmethod
    def of(net: nn.Module, points: Any, residual: Residual, wrt: str | Sequence[str] | None) -> _Side:
        groups = cast_groups(as_groups(points, residual)[0], torch.float64)
        chain, args = chain_args(cast_network(net, torch.float64), wrt)
        return _Side(chain, args, group_args(chain, groups))

    def cut(self, points: int) -> list[tuple[int, GroupArgs, list[Tensor]]]:
        return list(chunks(self.chain, self.args, self.groups, points, joined=False))

    def sweep(self, piece: tuple[int, GroupArgs, list[Tensor]]) -> Snapshot:
        return sweep(self.chain, self.args, piece[1], Workspace(), piece[2])


def _tiles(sides: list[_Side], budget: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield tiles of both kernels, and how often each counts: one triangle is computed, the other is its mirror."""
    groups = sides[0].groups
    if groups.residual_rows == 0:
        return
    least = 4 * max(factor_bytes(sides[0].chain, lone(groups, i), LEAST_POINTS) for i in range(len(groups.names)))
    if least > budget:
        raise ValueError(f"memory: expected at least {least} bytes for the factors of this network, got {budget}")
    pieces = [side.cut(min(_TILE_POINTS, LEAST_POINTS * (budget // least))) for side in sides]
    keep = 2 * factor_bytes(sides[0].chain, groups) <= budget
    kept = [[side.sweep(piece) for piece in own] for side, own in zip(sides, pieces, strict=True)] if keep else None
    for i in range(len(pieces[0])):
        rows = columns = None  # factors of four pieces were counted: the last ones go before the next ones are made
        rows = [kept[s][i] if kept else sides[s].sweep(pieces[s][i]) for s in range(2)]
        for j in range(i + 1):
            tiles = []
            for s in range(2):
                columns = rows[s] if i == j else kept[s][j] if kept else sides[s].sweep(pieces[s][j])
                tile = rows[s].A.new_empty(rows[s].groups.residual_rows, columns.groups.residual_rows)
                contract(rows[s], columns, tile)
                tiles.append(tile)
            yield tiles[0], tiles[1], 1.0 if i == j else 2.0
