"""Tick labels of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def grouped(number: int) -> str:
    """A whole number with narrow spaces between groups of three digits."""
    return f"{number:,}".replace(",", "\u2009")


def powers() -> Any:
    """Labels as short numbers, with a common power of ten where they are small or large."""
    from matplotlib.ticker import ScalarFormatter

    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-2, 3))
    return formatter


def plain_within_a_decade(axis: Any, curves: Sequence[np.ndarray]) -> None:
    """Powers of ten leave such an axis without labels and without a horizontal grid."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    values = np.concatenate([*curves, np.empty(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() < 10 * values.min():
        axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def thousands(axis: Any) -> None:
    """Few whole numbers along the horizontal axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda k, _: grouped(int(k))))
