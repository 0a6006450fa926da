"""A second opinion on the user's own data: the native trace and gram against the definitions by torch.func."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import reference
from .gram import gram
from .precision import cast_groups, cast_network
from .residual import Residual, check_points, value
from .sweep import Group, as_groups
from .trace import trace

TILE_POINTS = 12  # per group, for the gram
TRACE_POINTS = 128  # per group, for the trace
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class Check:
    """What ``ntk.check`` found: relative errors |T − T*|/T* of traces and ‖K − K*‖/‖K*‖ of a tile of the gram.

    The norm is Frobenius', the starred ones are the definitions in float64.

    Attributes:
        trace_errors: by group; the name is "" for a lone residual.
        gram_error: of the tile.
        trace_points: how many points entered each trace.
        tile: rows of the tile (a square one, all groups together).
        dtype: type of the parameters that the native core ran in.
        tolerance: the error that counts as agreement in that type.
    """

    trace_errors: dict[str, float]
    gram_error: float
    trace_points: dict[str, int]
    tile: int
    dtype: torch.dtype
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance (NaN is not)."""
        return all(error <= self.tolerance for error in (*self.trace_errors.values(), self.gram_error))

    def __str__(self) -> str:
        """Return one line for each error and a verdict."""
        lines = [f"native {self.dtype} against torch.func in float64, relative errors:"]
        for name, error in self.trace_errors.items():
            label = f"trace of {name!r}" if name else "trace"
            lines.append(f"  {label}, {self.trace_points[name]} points: {error:.1e}")
        lines.append(f"  gram, a tile of {self.tile} x {self.tile} rows: {self.gram_error:.1e}")
        lines.append(f"{'agree' if self.passed else 'DISAGREE'} (tolerance {self.tolerance:.0e})")
        return "\n".join(lines)


def check(
    net: nn.Module, points: Tensor | Mapping[str, tuple[Tensor, Any]], residual: Any = value, *, seed: int = 0
) -> Check:
    """Compare the native trace and a tile of the gram with ``ntk.reference`` in float64, on randomly chosen points.

    Args:
        net: a native network.
        points: (n, d), in the units of the problem; or a dict of groups {name: (points, residual)}.
        residual: what the rows are; the outputs themselves by default.
        seed: chooses the points: at most 128 of each group for the trace and 12 for the gram.

    Returns:
        The errors; ``print(ntk.check(…))`` shows them, ``.passed`` is the verdict.

    Raises:
        ValueError: no points, or what ``ntk.gram`` refuses.
        TypeError: arguments of a wrong type.

    Cost: a reference Jacobian row for each of these points, by nested automatic differentiation.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> net = ntk.MLP([2, 16, 1])
        >>> ntk.check(net, torch.rand(50, 2)).passed
        True
    """
    groups, several = as_groups(points, residual)
    if not groups:
        raise ValueError("check: expected at least one group, got none")
    for name, (x, fn) in groups.items():
        check_points(fn, getattr(x, "xy", x), finite=False)
        if len(x) == 0:
            raise ValueError(f"check: expected at least one point{f' in group {name!r}' if name else ''}, got none")
    generator = torch.Generator().manual_seed(seed)
    many = {name: _some(*group, TRACE_POINTS, generator) for name, group in groups.items()}
    few = {name: _some(*group, TILE_POINTS, generator) for name, group in groups.items()}
    exact_net, exact_many = cast_network(net, torch.float64), cast_groups(many, torch.float64)
    errors = {
        name: _relative(trace(net, *group), reference.trace(exact_net, *exact_many[name]))
        for name, group in many.items()
    }
    # A lone group goes as (points, residual): the name "" is ours.
    K = gram(net, few) if several else gram(net, *few[""])
    exact_K = reference.gram(exact_net, cast_groups(few, torch.float64))
    return Check(
        trace_errors=errors,
        gram_error=_relative(K, exact_K),
        trace_points={name: len(x) for name, (x, _) in many.items()},
        tile=K.shape[0],
        dtype=K.dtype,
        tolerance=TOLERANCE[K.dtype],
    )


def _some(points: Any, residual: Residual, most: int, generator: torch.Generator) -> Group:
    n = len(points)
    chosen = torch.randperm(n, generator=generator, device="cpu")[:most].sort().values
    chosen = chosen.to(getattr(points, "xy", points).device)
    # Coefficients that are aligned with the points follow them.
    aligned = {key: c[chosen] for key, c in residual.aligned(n).items()}
    return points[chosen], residual.bind(**aligned) if aligned else residual


def _relative(found: Tensor, exact: Tensor) -> float:
    error, size = (found.double() - exact).norm(), exact.norm()
    return float(error / size) if size > 0 else float(error)
