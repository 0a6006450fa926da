"""A condition: where points are drawn, which residual must vanish there, and against which target."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..residual import Residual, check_finite, value
from ..tape import At
from .box import Box, Union
from .points import Points

Target = float | Tensor | Callable[[At], Tensor]
Where = Box | Union | Tensor | Points | Callable[[int, torch.Generator], Tensor | Points]


class Draw(NamedTuple):
    """One draw of a condition's points."""

    points: Points
    index: Tensor | None  # which of a fixed set of points were drawn, (n,); None: all of them, or new points


class _Placed(NamedTuple):
    """Fixed points or a target where the network is, and what they were made from."""

    tensors: list[Tensor]
    written: list[int | None]
    result: Any


@dataclass(frozen=True, eq=False)
class Condition:
    """One condition of a problem: one draw of points, one residual, one sweep.

    The rows are ``residual(points) - target``, and their loss is the mean of their squares.

    Args:
        where: a :class:`Box` or a union of boxes (uniform points); an (n, d) tensor or :class:`Points` (fixed points);
            or a function ``(n, generator) -> tensor or Points``, which is the whole interface of a geometry.
        residual: an ``ntk.residual``, or inside a Problem a plain function, whose coordinates are the domain's.
        target: a number; a tensor aligned with fixed points, (n,); a function of ``at``; a dict of these by component.
        n: number of points drawn at each iteration; None only for fixed points: all of them.
        group: loss group of a residual with one nameless component; None is the condition's name.

    Raises:
        ValueError: if ``n`` is missing, not positive, or more than there are fixed points.
        TypeError: if an argument is none of the above.

    Example:
        >>> import ntkfast as ntk
        >>> D = ntk.Box(t=(0, 1), x=(0, 1))
        >>> ntk.Condition(D.at(x=0) | D.at(x=1), n=200, group="u").n
        200
    """

    where: Where
    residual: Residual | Callable[..., Any] = value
    target: Target | Mapping[str, Target] = 0.0
    n: int | None = field(default=None, kw_only=True)
    group: str | None = field(default=None, kw_only=True)
    _placed: dict[tuple[str, torch.device, torch.dtype], _Placed] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        where = Points(self.where) if isinstance(self.where, Tensor) else self.where
        object.__setattr__(self, "where", where)
        if isinstance(where, Residual) or not (isinstance(where, Box | Union | Points) or callable(where)):
            raise TypeError(
                f"Condition: expected where to be a Box, a union, a tensor, Points or a function (n, generator), "
                f"got {type(where).__name__}"
            )
        self._check_types()
        if self.n is not None and self.n < 1:
            raise ValueError(f"Condition: expected n >= 1, got {self.n}")
        if isinstance(where, Points):
            if len(where) == 0:
                raise ValueError("Condition: expected at least one fixed point, got none")
            check_finite("Condition", where.xy)
            if self.n is not None and self.n > len(where):
                raise ValueError(f"Condition: expected n <= {len(where)}, the fixed points, got {self.n}")
        elif self.n is None:
            raise ValueError("Condition: expected n, the number of points to draw per iteration, got None")

    def _check_types(self) -> None:
        if not callable(self.residual):
            raise TypeError(
                f"Condition: expected where first and then a residual or a function, got {type(self.residual).__name__}"
            )
        for target in self.target.values() if isinstance(self.target, Mapping) else (self.target,):
            if not (isinstance(target, numbers.Real | Tensor) or callable(target)):
                raise TypeError(
                    f"Condition: expected target as a number, a tensor, a function of at, or a dict of these, "
                    f"got {type(target).__name__}"
                )
        if self.n is not None and (not isinstance(self.n, int) or isinstance(self.n, bool)):
            raise TypeError(f"Condition: expected n as a whole number, got {self.n!r}")
        if not (self.group is None or isinstance(self.group, str)):
            raise TypeError(f"Condition: expected group as a name, got {self.group!r}")

    @property
    def size(self) -> int:
        """Points per draw."""
        if self.n is not None:
            return self.n
        assert isinstance(self.where, Points)
        return len(self.where)

    @property
    def most(self) -> int:
        """The most points that one draw can have: fixed ones are drawn without repetition."""
        return len(self.where) if isinstance(self.where, Points) else sys.maxsize

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Draw:
        """Draw points on the generator's device.

        Args:
            n: number of points; for fixed points a random subset without repetition, or all of them in order.
            generator: source of randomness.
            dtype: of the points.

        Returns:
            The points, (n, d), and for a subset of fixed points their indices.

        Raises:
            ValueError: if the function given as ``where`` returns the wrong number of points or NaN.
            TypeError: if it returns neither a tensor nor Points.
        """
        if isinstance(self.where, Box | Union):
            return Draw(Points(self.where.sample(n, generator, dtype)), None)
        if isinstance(self.where, Points):
            points = self._place("where", self.where, generator.device, dtype)
            if n == len(points):
                return Draw(points, None)
            index = torch.randperm(len(points), generator=generator, device=generator.device)[:n]
            return Draw(points[index], index)
        assert not isinstance(self.where, Tensor)  # made into Points at the start
        drawn = self.where(n, generator)
        if not isinstance(drawn, Tensor | Points):
            raise TypeError(f"the function that draws points: expected a tensor or Points, got {type(drawn).__name__}")
        points = (drawn if isinstance(drawn, Points) else Points(drawn)).to(generator.device, dtype)
        if len(points) != n:
            raise ValueError(f"the function that draws points: expected {n} points, got {len(points)}")
        check_finite("the function that draws points", points.xy)
        return Draw(points, None)

    def _place(self, what: str, fixed: Any, device: torch.device, dtype: torch.dtype) -> Any:
        # Kept until they are written to or replaced: a training step that copies fixed points to a GPU waits for it.
        tensors = [fixed.xy, *fixed.columns.values()] if isinstance(fixed, Points) else [fixed]
        written = [None if tensor.is_inference() else tensor._version for tensor in tensors]
        kept = self._placed.get((what, device, dtype))
        same = kept is not None and kept.written == written and len(kept.tensors) == len(tensors)
        if kept is None or not same or any(a is not b for a, b in zip(kept.tensors, tensors, strict=True)):
            kept = _Placed(tensors, written, fixed.to(device=device, dtype=dtype))
            self._placed[what, device, dtype] = kept
        return kept.result

    def targets(self, names: tuple[str, ...], coordinates: tuple[str, ...], draw: Draw) -> Tensor | None:
        """Evaluate the targets of the components at drawn points.

        Args:
            names: the residual's component names, k of them.
            coordinates: names of the columns of the points.
            draw: the points.

        Returns:
            Targets, (n, k), in the dtype of the points, or None where all of them are zero.

        Raises:
            ValueError: if a target names an unknown component or has the wrong shape.
        """
        if isinstance(self.target, Mapping):
            unknown = set(self.target) - set(names)
            if unknown:
                raise ValueError(f"target: expected components out of {names}, got {sorted(unknown)[0]!r}")
            columns = [self.target.get(name, 0.0) for name in names]
        else:
            columns = [self.target] * len(names)
        if all(isinstance(column, numbers.Real) and column == 0 for column in columns):
            return None
        return torch.stack(
            [self._column(name, column, coordinates, draw) for name, column in zip(names, columns, strict=True)], dim=1
        )

    def _column(self, name: str, target: Target, coordinates: tuple[str, ...], draw: Draw) -> Tensor:
        xy = draw.points.xy
        if isinstance(target, int | float | numbers.Real):
            return xy.new_full((len(xy),), float(target))
        if isinstance(target, Tensor):
            if not isinstance(self.where, Points):
                raise ValueError(
                    "target: expected a tensor only beside fixed points, got one beside points that are drawn"
                )
            if target.shape != (len(self.where),):
                raise ValueError(f"target: expected shape ({len(self.where)},), got {tuple(target.shape)}")
            column = self._place(f"target {name}", target, xy.device, xy.dtype)
            return column if draw.index is None else column[draw.index]
        column = torch.as_tensor(target(draw.points.at(coordinates, "target")), dtype=xy.dtype, device=xy.device)
        if column.ndim and column.shape != (len(xy),):
            raise ValueError(f"target: expected shape ({len(xy)},) from the function, got {tuple(column.shape)}")
        return column.expand(len(xy))
