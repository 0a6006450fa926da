"""Channels: which derivatives a network must carry so that given linear forms can be read from its outputs.

A form Σ a_(j,α) ∂^α u_j is split over channels:

    value              channel 0
    ∂u/∂x along a direction (a coordinate that has a second derivative somewhere)      that direction's channel
    all the rest       one collapsed channel, shared by proportional operators; a lone derivative keeps coefficient 1
                       there, so that a coefficient that varies from point to point ends in the seed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .jet import Coefficient, Term

Terms = dict[Term, Coefficient]
Alpha = tuple[tuple[int, int], ...]
Operator = dict[Alpha, Coefficient]
# (channel, output, term, ratio): the channel counts with the coefficient of the term, or, for None, with the ratio.
Entry = tuple[int, int, "Term | None", float]


@dataclass(frozen=True)
class JetSpec:
    """The channels of a jet: 0 the value, 1 … F first derivatives along directions, F+1 … F+M collapsed ones.

    Args:
        directions: input columns of the F directions.
        collapsed: M.
        beta: (1 or n, F+M, d), the first-order parts of channels 1 … F+M (a unit vector for a direction).
        omega: (1 or n, M, F), the weights of the second derivatives.
        components: for each row of a point, the indices of the directions and of the collapsed channels that it needs.
    """

    directions: tuple[int, ...]
    collapsed: int
    beta: Tensor
    omega: Tensor
    components: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def order(self) -> int:
        """The highest derivative: 0, 1 or 2."""
        return 2 if self.directions else 1 if self.collapsed else 0

    @property
    def n_channels(self) -> int:
        """C = 1 + F + M."""
        return 1 + len(self.directions) + self.collapsed

    @property
    def n_cotangents(self) -> tuple[int, ...]:
        """C_j of each component."""
        return tuple(1 + len(directions) + len(collapsed) for directions, collapsed in self.components)

    def channels(self, component: int) -> tuple[int, ...]:
        """The channels of one component, ascending."""
        directions, collapsed = self.components[component]
        first = 1 + len(self.directions)
        return (0, *(1 + k for k in directions), *(first + m for m in collapsed))


@dataclass(frozen=True)
class Layout:
    """How forms split over channels: a plan per materialised form, in the order of the run, then one per component."""

    spec: JetSpec
    plans: tuple[tuple[Entry, ...], ...]
    seeds: tuple[
        Tensor | None, ...
    ]  # (C_j, 1, o) for components that are linear with numbers for coefficients, else None


def layout_of(forms: Sequence[Terms], depends: Sequence[tuple[int, ...]], like: Tensor, n_outputs: int) -> Layout:
    """Choose channels for forms.

    Args:
        forms: the materialised forms, then one form per component.
        depends: for each component, the materialised forms on which its source depends.
        like: the points, (n, d): number, dtype and device.
        n_outputs: o.
    """
    builder = _Builder(forms)
    plans = tuple(builder.plan(terms) for terms in forms)
    first = len(forms) - len(depends)
    needs = tuple(builder.needs([plans[first + j], *(plans[i] for i in used)]) for j, used in enumerate(depends))
    beta, omega = builder.weights(like)
    spec = JetSpec(builder.directions, len(builder.operators), beta, omega, needs)
    seeds = []
    for j, used in enumerate(depends):
        entries = [(c, o, ratio if term is None else forms[first + j][term]) for c, o, term, ratio in plans[first + j]]
        constant = not used and all(isinstance(weight, float) for _, _, weight in entries)
        seeds.append(seed(spec.channels(j), entries, like[:1], n_outputs) if constant else None)
    return Layout(spec, plans, tuple(seeds))


def seed(
    channels: tuple[int, ...], entries: Sequence[tuple[int, int, Coefficient]], like: Tensor, n_outputs: int
) -> Tensor:
    """∂row/∂out over the given channels, summed from (channel, output, weight).

    Args:
        channels: C_j channels.
        entries: weights, numbers or tensors that broadcast to (n,).
        like: (n, d): number, dtype and device.
        n_outputs: o.

    Returns:
        (C_j, n, o); (C_j, 1, o) when all weights are numbers.
    """
    position = {channel: i for i, channel in enumerate(channels)}
    n = like.shape[0] if any(isinstance(weight, Tensor) for _, _, weight in entries) else 1
    # Filled on the device: a copy from the host would wait for it.
    result = torch.zeros(len(channels), n, n_outputs, dtype=like.dtype, device=like.device)
    for channel, output, weight in entries:
        result[position[channel], :, output].add_(weight)
    return result


class _Builder:
    """The directions and collapsed operators of a set of forms."""

    def __init__(self, forms: Sequence[Terms]) -> None:
        seconds = {
            alpha[0][0]
            for terms in forms
            for (_, alpha), c in terms.items()
            if _counts(c) and alpha and alpha[0][1] == 2
        }
        self.directions = tuple(sorted(seconds))
        self.operators: list[Operator] = []
        self.lone: dict[Alpha, int] = {}
        rests = [rest for terms in forms for rest in self._rest(terms)[1].values()]
        # Lone derivatives first: a sum of several that all travel anyway needs no channel of its own.
        for rest in rests:
            if len(rest) == 1:
                (alpha,) = rest
                if alpha not in self.lone:
                    self.lone[alpha] = len(self.operators)
                    self.operators.append({alpha: 1.0})
        for rest in rests:
            if not rest.keys() <= self.lone.keys() and self._find(rest) is None:
                self.operators.append(rest)

    def _rest(self, terms: Terms) -> tuple[list[Entry], dict[int, Operator]]:
        """Split off what the value and the directions carry; the rest by output."""
        entries: list[Entry] = []
        rest: dict[int, Operator] = {}
        for term, c in terms.items():
            output, alpha = term
            if not _counts(c):
                continue
            if not alpha:
                entries.append((0, output, term, 1.0))
            elif alpha[0][1] == 1 and alpha[0][0] in self.directions:
                entries.append((1 + self.directions.index(alpha[0][0]), output, term, 1.0))
            else:
                rest.setdefault(output, {})[alpha] = c
        return entries, rest

    def _find(self, operator: Operator) -> tuple[int, float] | None:
        for m, known in enumerate(self.operators):
            ratio = _ratio(operator, known)
            if ratio is not None:
                return m, ratio
        return None

    def plan(self, terms: Terms) -> tuple[Entry, ...]:
        """The channels of one form."""
        entries, rests = self._rest(terms)
        first = 1 + len(self.directions)
        for output, rest in rests.items():
            if rest.keys() <= self.lone.keys():
                entries += [(first + self.lone[alpha], output, (output, alpha), 1.0) for alpha in rest]
            else:
                found = self._find(rest)
                assert found is not None
                entries.append((first + found[0], output, None, found[1]))
        return tuple(entries)

    def needs(self, plans: Sequence[tuple[Entry, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Directions and collapsed channels of the plans; a collapsed one brings the directions inside of it."""
        used = {channel for plan in plans for channel, *_ in plan}
        first = 1 + len(self.directions)
        directions = {c - 1 for c in used if 0 < c < first}
        collapsed = {c - first for c in used if c >= first}
        for m in collapsed:
            directions |= {self.directions.index(alpha[0][0]) for alpha in self.operators[m] if alpha[0][1] == 2}
        return tuple(sorted(directions)), tuple(sorted(collapsed))

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """beta, (1 or n, F+M, d), and omega, (1 or n, M, F)."""
        F, M = len(self.directions), len(self.operators)
        beta: list[tuple[int, int, Coefficient]] = [(k, column, 1.0) for k, column in enumerate(self.directions)]
        omega: list[tuple[int, int, Coefficient]] = []
        for m, operator in enumerate(self.operators):
            for ((column, order),), c in operator.items():
                if order == 1:
                    beta.append((F + m, column, c))
                else:
                    omega.append((m, self.directions.index(column), c))
        return _filled(F + M, like.shape[1], beta, like), _filled(M, F, omega, like)


def _filled(rows: int, columns: int, entries: Sequence[tuple[int, int, Coefficient]], like: Tensor) -> Tensor:
    """(1 or n, rows, columns) from its non-zero entries, n where one of them varies from point to point."""
    varies = any(isinstance(c, Tensor) and c.ndim and c.shape[0] == like.shape[0] for _, _, c in entries)
    result = torch.zeros(like.shape[0] if varies else 1, rows, columns, dtype=like.dtype, device=like.device)
    for i, j, c in entries:
        result[:, i, j].add_(c)
    return result


def same_numbers(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and equal elements; NaN equals NaN."""
    if torch.equal(a, b):
        return True
    nan = a.isnan()
    return torch.equal(nan, b.isnan()) and torch.equal(torch.where(nan, 0.0, a), torch.where(nan, 0.0, b))


def _counts(c: Coefficient) -> bool:
    return isinstance(c, Tensor) or c != 0.0


def _ratio(a: Operator, b: Operator) -> float | None:
    """The number a / b where a is a number times b, else None."""
    if a.keys() != b.keys():
        return None
    if all(c is b[alpha] for alpha, c in a.items()):
        return 1.0
    ratio = None
    for alpha, c in a.items():
        k = b[alpha]
        if isinstance(c, Tensor) or isinstance(k, Tensor):
            return None
        ratio = c / k if ratio is None else ratio
        if not math.isclose(c, ratio * k, rel_tol=1e-15):
            return None
    return ratio
