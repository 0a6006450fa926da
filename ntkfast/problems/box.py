"""Boxes: products of intervals with named coordinates, their faces and unions, and uniform points on them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kept import Kept


class Box:
    """A product of intervals with named coordinates, ``D = Box(t=(0, 1), x=(0, 1))``.

    The order of the names is the order of the network's input columns. A face has a fixed coordinate: ``D.at(t=0)``.

    Args:
        intervals: ``name=(low, high)`` with low < high, finite.

    Raises:
        ValueError: if there is no coordinate, or an interval is not two finite numbers low < high.

    Example:
        >>> import ntkfast as ntk
        >>> D = ntk.Box(t=(0, 1), x=(0, 2))
        >>> D.at(t=0)
        Box(t=0, x=(0, 2))
        >>> D.mean.tolist()
        [0.5, 1.0]
    """

    def __init__(self, **intervals: tuple[float, float]) -> None:
        if not intervals:
            raise ValueError("Box: expected at least one coordinate, such as Box(x=(0, 1)), got none")
        for name, interval in intervals.items():
            if not (isinstance(interval, Sequence) and len(interval) == 2):
                raise ValueError(f"Box: expected {name}=(low, high), got {name}={interval!r}")
            low, high = (float(end) for end in interval)
            if not (math.isfinite(high - low) and low < high):
                raise ValueError(f"Box: expected finite {name}=(low, high), low < high, got {name}={tuple(interval)}")
        self.names: tuple[str, ...] = tuple(intervals)
        self.low: tuple[float, ...] = tuple(float(interval[0]) for interval in intervals.values())
        self.high: tuple[float, ...] = tuple(float(interval[1]) for interval in intervals.values())
        self._constants: Kept[tuple[Tensor, Tensor]] = Kept(8)

    def at(self, **fixed: float) -> Box:
        """Return the face on which the named coordinates have the given values.

        Args:
            fixed: ``name=value`` with the value inside the interval.

        Returns:
            A Box with the same coordinates, in the same order.

        Raises:
            ValueError: if a name is unknown, or its value lies outside the interval.
        """
        low, high = list(self.low), list(self.high)
        for name, position in fixed.items():
            if name not in self.names:
                raise ValueError(f"Box.at: expected a coordinate out of {self.names}, got {name!r}")
            k = self.names.index(name)
            if not low[k] <= position <= high[k]:
                raise ValueError(f"Box.at: expected {name} in [{low[k]:g}, {high[k]:g}], got {position}")
            low[k] = high[k] = float(position)
        face = Box.__new__(Box)
        face.names, face.low, face.high, face._constants = self.names, tuple(low), tuple(high), Kept(8)
        return face

    def __or__(self, other: Box | Union) -> Union:
        return Union(self) | other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and (self.names, self.low, self.high) == (other.names, other.low, other.high)

    def __hash__(self) -> int:
        return hash((self.names, self.low, self.high))

    def __repr__(self) -> str:
        return f"Box({', '.join(self._interval(k) for k in range(len(self.names)))})"

    def _interval(self, k: int) -> str:
        low, high = self.low[k], self.high[k]
        return f"{self.names[k]}={low:g}" if low == high else f"{self.names[k]}=({low:g}, {high:g})"

    @property
    def mean(self) -> Tensor:
        """Mean of uniform points, (low + high)/2 per coordinate: (d,), float64."""
        centre = [(a + b) / 2 for a, b in zip(self.low, self.high, strict=True)]
        return torch.tensor(centre, dtype=torch.float64, device="cpu")

    @property
    def std(self) -> Tensor:
        """Standard deviation of uniform points, (high - low)/sqrt(12) per coordinate: (d,), float64."""
        deviation = [(b - a) / math.sqrt(12) for a, b in zip(self.low, self.high, strict=True)]
        return torch.tensor(deviation, dtype=torch.float64, device="cpu")

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the coordinates that are not fixed."""
        return tuple(name for name, a, b in zip(self.names, self.low, self.high, strict=True) if a < b)

    @property
    def measure(self) -> float:
        """Length, area or volume in the free coordinates; 1 for a single point."""
        return math.prod(b - a for a, b in zip(self.low, self.high, strict=True) if a < b)

    def sample(self, n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Draw independent uniform points, x = low + (high - low) ∘ U with U uniform on [0, 1).

        Args:
            n: number of points, at least 0.
            generator: source of randomness; the points are made on its device (None: torch's own, on the CPU).
            dtype: of the points; None is torch's default.

        Returns:
            Points, (n, d).

        Raises:
            ValueError: if n is negative.
            TypeError: if n is no whole number.
        """
        _check_number("sample", "a number of points", n, 0)
        device = torch.device("cpu") if generator is None else generator.device
        dtype = dtype or torch.get_default_dtype()
        low, width = self._bounds(dtype, device)
        uniform = torch.rand((n, len(self.names)), generator=generator, dtype=dtype, device=device)
        return torch.addcmul(low, width, uniform)

    def _bounds(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        # Kept per dtype and device: a training step draws points and should not copy constants to a GPU.
        def make() -> tuple[Tensor, Tensor]:
            low, high = (
                torch.tensor(ends, dtype=torch.float64, device="cpu").to(dtype) for ends in (self.low, self.high)
            )
            # Between the rounded ends, which rounding does not leave then: U · width < high − low.
            width = (high.double() - low.double()).to(dtype)
            return low.to(device), width.to(device)

        return self._constants.get((dtype, device), device, make)

    def grid(self, size: int) -> Tensor:
        """Return the regular grid with ``size`` points per free coordinate, ends included.

        Args:
            size: points per free coordinate, at least 1; a fixed coordinate has one.

        Returns:
            Points, (size ** number of free coordinates, d), float64, the last coordinate running fastest.

        Raises:
            ValueError: if there is no point.
            TypeError: if ``size`` is no whole number.
        """
        _check_number("Box.grid", "a size", size, 1)
        axes = [
            torch.linspace(a, b, size if a < b else 1, dtype=torch.float64, device="cpu")
            for a, b in zip(self.low, self.high, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(self.names))


class Union:
    """A union of boxes of one dimension, ``D.at(x=0) | D.at(x=1)``; points are uniform in their common measure.

    Where boxes overlap, the overlap counts once for each of them.

    Args:
        boxes: boxes with the same coordinates and the same number of free ones.

    Raises:
        ValueError: if the coordinates or the dimensions differ.
    """

    def __init__(self, *boxes: Box) -> None:
        if not boxes:
            raise ValueError("Union: expected at least one box, got none")
        for box in boxes[1:]:
            if box.names != boxes[0].names:
                raise ValueError(f"Union: expected boxes with the coordinates {boxes[0].names}, got {box.names}")
            if len(box.free) != len(boxes[0].free):
                raise ValueError(f"Union: expected boxes of the same dimension, got {boxes[0]} and {box}")
        self.boxes = boxes
        self._constants: Kept[tuple[Tensor, Tensor, Tensor]] = Kept(8)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.boxes[0].names

    def __or__(self, other: Box | Union) -> Union:
        if not isinstance(other, Box | Union):
            return NotImplemented
        return Union(*self.boxes, *(other.boxes if isinstance(other, Union) else (other,)))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.boxes))

    def sample(self, n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Draw independent points: a box with probability proportional to its measure, then a uniform point of it.

        Args:
            n: number of points, at least 0.
            generator: source of randomness; the points are made on its device (None: torch's own, on the CPU).
            dtype: of the points; None is torch's default.

        Returns:
            Points, (n, d).

        Raises:
            ValueError: if n is negative.
            TypeError: if n is no whole number.
        """
        _check_number("sample", "a number of points", n, 0)
        device = torch.device("cpu") if generator is None else generator.device
        dtype = dtype or torch.get_default_dtype()
        measures, low, width = self._bounds(dtype, device)
        # For a single draw torch would look at the measures on the host, which stalls a GPU.
        choice = torch.multinomial(measures, max(n, 2), replacement=True, generator=generator)[:n] if n else []
        uniform = torch.rand((n, len(self.names)), generator=generator, dtype=dtype, device=device)
        return torch.addcmul(low[choice], width[choice], uniform)

    def _bounds(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        # Kept per dtype and device, as those of a box are.
        def make() -> tuple[Tensor, Tensor, Tensor]:
            bounds = [box._bounds(dtype, device) for box in self.boxes]
            measures = torch.tensor([box.measure for box in self.boxes], dtype=torch.float64, device=device)
            low, width = (torch.stack(part) for part in zip(*bounds, strict=True))
            return measures, low, width

        return self._constants.get((dtype, device), device, make)


def _check_number(owner: str, what: str, number: int, least: int) -> None:
    if not isinstance(number, numbers.Integral) or isinstance(number, bool):
        raise TypeError(f"{owner}: expected {what} as a whole number, got {number!r}")
    if number < least:
        raise ValueError(f"{owner}: expected {what} of at least {least}, got {number}")
