"""A problem: a domain with named coordinates, the conditions on it, and perhaps an exact solution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..residual import Residual, check_names, residual
from ..tape import At
from .box import Box, Union
from .condition import Condition
from .points import Points

_GRID_POINTS = 40_000  # that an error is taken on, unless told otherwise


@dataclass(frozen=True, eq=False)
class Problem:
    """A boundary value problem as data: points are drawn per condition, and every loss group gets one weight.

    A component's key is its loss group; a lone component takes ``group=`` of its condition, or the condition's name.
    The loss of a group is the sum over its conditions of mean(rows²).

    Args:
        domain: the box of all coordinates; the order of its names is the order of the network's input columns.
        conditions: conditions by name. Plain functions become residuals with the domain's coordinates.
        exact: the exact solution, a function of ``at`` (``at.t``, ``at.x``) that returns (n,), or None.

    Raises:
        ValueError: if there is no condition, or one whose coordinates are not the domain's.
        TypeError: if ``domain`` is no Box, ``conditions`` no dict of conditions, or ``exact`` no function.

    Example:
        >>> import ntkfast as ntk
        >>> D = ntk.Box(t=(0, 1), x=(0, 1))
        >>> heat = ntk.Problem(D, {
        ...     "start": ntk.Condition(D.at(t=0), lambda u, at: u - at.x * (1 - at.x), n=100, group="u"),
        ...     "r": ntk.Condition(D, lambda u: u.d(t=1) - u.d(x=2), n=300)})
        >>> list(heat.conditions)
        ['start', 'r']
    """

    domain: Box
    conditions: Mapping[str, Condition]
    exact: Callable[[At], Tensor] | None = field(default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.domain, Box):
            raise TypeError(f"Problem: expected an ntk.Box as the domain, got {type(self.domain).__name__}")
        if not isinstance(self.conditions, Mapping):
            raise TypeError(
                f"Problem: expected a dict of conditions by name, {{'left': ntk.Condition(…)}}, "
                f"got {type(self.conditions).__name__}"
            )
        for name, condition in self.conditions.items():
            if not isinstance(condition, Condition):
                raise TypeError(f"Problem: expected {name!r} to be an ntk.Condition, got {type(condition).__name__}")
        if not self.conditions:
            raise ValueError("Problem: expected at least one condition, got none")
        if self.exact is not None and not callable(self.exact):
            raise TypeError(f"Problem: expected exact as a function of at, or None, got {type(self.exact).__name__}")
        resolved = {name: self._resolve(name, condition) for name, condition in self.conditions.items()}
        object.__setattr__(self, "conditions", MappingProxyType(resolved))

    def _resolve(self, name: str, condition: Condition) -> Condition:
        coordinates = self.domain.names
        where = condition.where
        if isinstance(where, Box | Union) and where.names != coordinates:
            raise ValueError(
                f"Problem: expected condition {name!r} on the domain's coordinates {coordinates}, got {where.names}"
            )
        if isinstance(where, Points) and where.xy.shape[1] != len(coordinates):
            raise ValueError(
                f"Problem: expected points of condition {name!r} with a column for each of {coordinates}, "
                f"got {where.xy.shape[1]} columns"
            )
        if isinstance(where, Points):
            check_names(f"Problem: the points of condition {name!r}", coordinates, where.columns)
        if not isinstance(condition.residual, Residual):
            resolved = copy.copy(condition)  # of its own class, whatever that class is made from
            object.__setattr__(resolved, "residual", residual(*coordinates)(condition.residual))
            object.__setattr__(resolved, "_placed", {})
            return resolved
        own = condition.residual.coordinates
        if own and tuple(own) != coordinates:  # ntk.value has none: it fits every domain
            raise ValueError(
                f"Problem: expected the residual of condition {name!r} in the domain's coordinates {coordinates}, "
                f"got {tuple(own)}"
            )
        return condition

    def groups_of(self, name: str, components: tuple[str, ...]) -> tuple[str, ...]:
        """Return the loss group of each component of a condition's residual.

        Args:
            name: the condition.
            components: the residual's component names; those of ``ntk.value`` count as nameless.

        Raises:
            ValueError: if ``group=`` was given for a residual whose components name their groups themselves.
        """
        condition = self.conditions[name]
        residual = condition.residual
        if (isinstance(residual, Residual) and residual.fn is None) or components == ("",):
            return (condition.group or name,) * len(components)
        if condition.group is not None:
            raise ValueError(
                f"Problem: expected no group= of condition {name!r}, whose components name theirs, "
                f"got {condition.group!r}"
            )
        return components

    def __reduce__(self) -> tuple[type[Problem], tuple[object, ...]]:
        """What ``copy.deepcopy`` makes a copy from: its read-only view of the conditions cannot be copied."""
        return Problem, (self.domain, dict(self.conditions), self.exact)

    def error(self, net: nn.Module, size: int | None = None, chunk: int = 8192) -> float:
        """Relative L2 error of a network on a grid, ‖u − u*‖ / ‖u*‖.

        Args:
            net: the network, with one output.
            size: grid points per coordinate, ends included; None: 200, or fewer where the grid would have more than
                40 000 points in all.
            chunk: points per forward pass.

        Returns:
            The error, accumulated in float64.

        Raises:
            ValueError: if the problem has no exact solution, or one that does not give (n,), or the network has several
                outputs.
            TypeError: if the exact solution gives no tensor.
        """
        if self.exact is None:
            raise ValueError("Problem.error: expected a problem with an exact solution, got one without")
        if size is None:
            size = max(2, min(200, int(_GRID_POINTS ** (1 / len(self.domain.free)) + 1e-9)))
        grid = self.domain.grid(size)
        exact = self.solution(grid)
        predicted = predict(net, grid, chunk)
        return float(torch.linalg.vector_norm(predicted - exact) / torch.linalg.vector_norm(exact))

    def solution(self, xy: Tensor) -> Tensor:
        """Evaluate the exact solution at points (n, d); returns (n,), float64.

        Raises:
            ValueError: if the problem has no exact solution, or one that does not give (n,).
            TypeError: if the exact solution gives no tensor.
        """
        if self.exact is None:
            raise ValueError("Problem.solution: expected a problem with an exact solution, got one without")
        values = self.exact(Points(xy.double()).at(self.domain.names, "exact"))
        if not isinstance(values, Tensor):
            raise TypeError(f"exact: expected a tensor of shape ({len(xy)},), got {type(values).__name__}")
        if values.shape != (len(xy),):
            raise ValueError(f"exact: expected shape ({len(xy)},), one value per point, got {tuple(values.shape)}")
        return values.double()


def predict(net: nn.Module, xy: Tensor, chunk: int = 8192) -> Tensor:
    """Evaluate a network without gradients, a chunk of points at a time.

    Args:
        net: the network.
        xy: points, (n, d), any dtype and device.
        chunk: points per forward pass, to stay in cache and bound memory.

    Returns:
        The output, (n,), float64, on the CPU.

    Raises:
        ValueError: a network with several outputs.

    Example:
        >>> import torch
        >>> from ntkfast.problems import predict
        >>> predict(torch.nn.Linear(2, 1), torch.rand(5, 2)).shape
        torch.Size([5])
    """
    parameter = next(net.parameters())
    with torch.no_grad():
        parts = [net(part.to(parameter.device, parameter.dtype)) for part in xy.split(chunk)]
    out = torch.cat(parts).double().cpu()
    if out.shape != (len(xy), 1):
        raise ValueError(f"predict: expected a network with 1 output, got outputs of shape {tuple(out.shape)}")
    return out[:, 0]
