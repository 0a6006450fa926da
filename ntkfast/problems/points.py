"""Points with named columns that travel with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..residual import check_names
from ..tape import At


class Points:
    """Points of a domain with named columns that travel with them (a normal, a datum, a quadrature weight).

    Args:
        xy: the points, (n, d), floating point.
        columns: further columns by name, each (n,); a residual reads them as ``at.<name>``.

    Raises:
        TypeError: if ``xy`` or a column is no tensor.
        ValueError: if ``xy`` is not two-dimensional or a column does not have one entry per point.

    Example:
        >>> import torch
        >>> from ntkfast.problems import Points
        >>> p = Points(torch.zeros(3, 2), nx=torch.ones(3))
        >>> len(p), sorted(p.columns)
        (3, ['nx'])
    """

    __slots__ = ("columns", "xy")

    def __init__(self, xy: Tensor, **columns: Tensor) -> None:
        for name, given in {"points": xy, **columns}.items():
            if not isinstance(given, Tensor):
                raise TypeError(f"Points: expected {name} as a tensor, got {type(given).__name__}")
        if xy.ndim != 2:
            raise ValueError(f"Points: expected points of shape (n, d), got {tuple(xy.shape)}")
        for name, column in columns.items():
            if column.shape != xy.shape[:1]:
                raise ValueError(f"Points: expected column {name!r} of shape ({len(xy)},), got {tuple(column.shape)}")
        self.xy = xy
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, index: Tensor | slice) -> Points:
        return Points(self.xy[index], **{name: column[index] for name, column in self.columns.items()})

    def __repr__(self) -> str:
        names = "".join(f", {name}" for name in self.columns)
        return f"Points({tuple(self.xy.shape)}{names})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Points:
        """Return the same points and columns on a device, in a dtype."""
        columns = {name: column.to(device=device, dtype=dtype) for name, column in self.columns.items()}
        return Points(self.xy.to(device=device, dtype=dtype), **columns)

    def at(self, coordinates: tuple[str, ...], owner: str) -> At:
        """Return the points as targets and exact solutions see them: ``at.t``, ``at.x`` and the further columns.

        Args:
            coordinates: names of the columns of ``xy``.
            owner: named in errors.

        Raises:
            ValueError: if there are not as many names as columns, or one is the name of a further column too.
        """
        if len(coordinates) != self.xy.shape[1]:
            raise ValueError(
                f"{owner}: expected points (n, {len(coordinates)}) for the coordinates {coordinates}, "
                f"got {tuple(self.xy.shape)}"
            )
        check_names(owner, coordinates, self.columns)
        return At(owner, {name: k for k, name in enumerate(coordinates)}, self.xy, self.columns)
