"""The data of one training step: points of all conditions, and the loss group of every row of their one sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..chain import Chain
from ..gram import gram
from ..problems import Condition, Problem
from ..problems.condition import Draw
from ..recording import record
from ..residual import Residual
from ..streaming import streaming_diag
from ..sweep import ChainArgs, GroupArgs, chain_args, group_args


@dataclass(frozen=True)
class Batch:
    """Points of every condition as ``ntk.factors`` takes them, and the targets of all rows, (N,), or None: all zero."""

    groups: dict[str, Any]
    targets: Tensor | None


@dataclass(frozen=True)
class Fresh:
    """Fresh points of one group: how many each condition draws, which rows of their sweep are the group's, how many."""

    sizes: dict[str, int]
    rows: slice | Tensor
    count: int

    def trace(self, chain: Chain, args: ChainArgs, groups: GroupArgs) -> Tensor:
        """The trace of the group on points that were drawn so, 0-d float64: one further sweep."""
        return streaming_diag(chain, args, groups, None, False, torch.float64)[:, self.rows].sum()


class StepRows:
    """The rows of a step in the order of the sweep: conditions one after the other, rows point-major within each.

    With g(i) the loss group of row i and n_i the rows of its condition in that group,

        loss_g = Σ_{i: g(i) = g} row_i² / n_i,        ∂(Σ_g λ_g loss_g)/∂row_i = 2 λ_g(i) row_i / n_i.

    Args:
        problem: the conditions.
        sizes: points per condition.
        net: its dtype, device and number of outputs settle what is drawn.
        generator: used for one draw that finds the components of every residual; its state is put back.
    """

    def __init__(self, problem: Problem, sizes: Mapping[str, int], net: nn.Module, generator: torch.Generator) -> None:
        self.sizes = dict(sizes)
        self.coordinates = problem.domain.names
        self.conditions: dict[str, Condition] = dict(problem.conditions)
        parameter = next(net.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        self.components = self._components(net, generator)
        self.component_groups = {name: problem.groups_of(name, names) for name, names in self.components.items()}
        self.groups = tuple(dict.fromkeys(group for groups in self.component_groups.values() for group in groups))
        number = {group: k for k, group in enumerate(self.groups)}
        pattern = {name: [number[group] for group in groups] for name, groups in self.component_groups.items()}
        rows = [torch.tensor(pattern[name], device="cpu").repeat(n) for name, n in self.sizes.items()]
        parts = [(1 / torch.bincount(own).double())[own] for own in rows]
        group_of_row = torch.cat(rows)
        self.group_of_row = group_of_row.to(self.device)
        self.share = torch.cat(parts).to(self.device, self.dtype)
        self.rows_of = [_where(group_of_row == k, self.device) for k in range(len(self.groups))]
        counts = torch.bincount(group_of_row, minlength=len(self.groups)).tolist()
        self.rows = dict(zip(self.groups, counts, strict=True))
        self._fresh: dict[tuple[str, int], Fresh] = {}

    def _components(self, net: nn.Module, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
        state = generator.get_state()
        components = {}
        with torch.no_grad():
            for name, condition in self.conditions.items():
                points = self._draw(name, self.sizes[name], generator).points
                outputs = net(points.xy[:1]).shape[1]
                assert isinstance(condition.residual, Residual)  # the problem has made it one
                components[name] = record(condition.residual, points.xy, outputs, points.columns).names
        generator.set_state(state)
        return components

    def _draw(self, name: str, n: int, generator: torch.Generator) -> Draw:
        draw = self.conditions[name].draw(n, generator, self.dtype)
        if draw.points.xy.shape[1] != len(self.coordinates):
            raise ValueError(
                f"condition {name!r}: expected points with a column for each of {self.coordinates} from its function, "
                f"got {draw.points.xy.shape[1]} columns"
            )
        return draw

    def draw(self, generator: torch.Generator, sizes: Mapping[str, int] | None = None) -> Batch:
        """Draw the points of every condition, or of those in ``sizes``, in the problem's order."""
        groups: dict[str, Any] = {}
        targets: list[Tensor | None] = []
        lengths = []
        for name, n in (self.sizes if sizes is None else sizes).items():
            condition = self.conditions[name]
            draw = self._draw(name, n, generator)
            groups[name] = (_bare(draw.points), condition.residual)
            names = self.components[name]
            target = condition.targets(names, self.coordinates, draw)
            targets.append(None if target is None else target.flatten())
            lengths.append(n * len(names))
        if all(target is None for target in targets):
            return Batch(groups, None)
        filled = [
            torch.zeros(length, dtype=self.dtype, device=self.device) if target is None else target
            for target, length in zip(targets, lengths, strict=True)
        ]
        return Batch(groups, torch.cat(filled))

    def prepare(self, net: nn.Module, batch: Batch) -> tuple[Chain, ChainArgs, GroupArgs]:
        """What native sweeps over a batch are called with; nothing waits for the device."""
        chain, args = chain_args(net)
        return chain, args, group_args(chain, batch.groups, finite=False)

    def losses(self, rows: Tensor) -> Tensor:
        """Loss of every group, (G,), from all rows, (N,)."""
        return self.sums(self.share * rows * rows)

    def pull(self, weights: Tensor) -> Tensor:
        """Coefficients 2 λ_g / n of every row, (N,), from the weights of the groups, (G,)."""
        return 2 * weights.to(self.device, self.dtype)[self.group_of_row] * self.share

    def sums(self, rows: Tensor) -> Tensor:
        """Sums over the rows of every group, (G,)."""
        # Group by group: one scattered sum would add in any order on a GPU, and differ from run to run.
        return torch.stack([rows[own].sum() for own in self.rows_of])

    def fresh(self, group: str, n: int) -> Fresh:
        """The points of ``n`` fresh ones that each condition of a group draws: in proportion to its own number."""
        if (group, n) not in self._fresh:
            members = {name: size for name, size in self.sizes.items() if group in self.component_groups[name]}
            total = sum(members.values())
            sizes = {
                name: min(max(1, round(n * size / total)), self.conditions[name].most) for name, size in members.items()
            }
            pattern = {name: [g == group for g in self.component_groups[name]] for name in sizes}
            mine = torch.cat([torch.tensor(pattern[name], device="cpu").repeat(k) for name, k in sizes.items()])
            self._fresh[group, n] = Fresh(sizes, _where(mine, self.device), int(mine.sum()))
        return self._fresh[group, n]

    def spectra(self, net: nn.Module, batch: Batch) -> dict[str, list[float]]:
        """Eigenvalues of the kernel of every group on a batch's points, descending, computed in float64.

        Cost: one Gram of all N rows and one symmetric eigenvalue problem per group.
        """
        K = gram(net, batch.groups, dtype=torch.float64)
        spectra = {}
        for k, group in enumerate(self.groups):
            mine = torch.nonzero(self.group_of_row == k).squeeze(1)
            block = K[mine][:, mine].cpu()
            spectra[group] = torch.linalg.eigvalsh(block).flip(0).tolist()
        return spectra


def _where(mine: Tensor, device: torch.device) -> slice | Tensor:
    """The rows for which a mask holds: as a slice if they stand together."""
    rows = torch.nonzero(mine).squeeze(1)
    first, count = (int(rows[0]), len(rows)) if len(rows) else (0, 0)
    together = torch.equal(rows, torch.arange(first, first + count, device=rows.device))
    return slice(first, first + count) if together else rows.to(device)


def _bare(points: Any) -> Any:
    # Residuals take a plain tensor unless named columns have to travel with it.
    return points if points.columns else points.xy
