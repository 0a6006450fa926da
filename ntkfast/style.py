"""The style of all figures: colours, panels, one legend, and the curve through noisy records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe–Ito: distinct for colour-blind readers too, and apart in grey by the line styles that go with them.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--")
STYLE: dict[Any, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}
WIDTH = 6.8  # inches: a text column of a paper


def panels_of(columns: int, height: float, **options: Any) -> tuple[Figure, Sequence[Any]]:
    """A figure of so many panels side by side."""
    from matplotlib.figure import Figure

    if columns == 0:
        raise ValueError("expected at least one curve to draw, got none")
    figure = Figure(figsize=(WIDTH if columns > 1 else 0.62 * WIDTH, height))
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def legend_of(
    figure: Figure, axes: Sequence[Any], columns: int | None = None, order: Any = None, **options: Any
) -> None:
    """One legend below all panels, with every label of theirs once, as they come or in the order of some labels."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    found = {label: found[label] for label in order or found if label in found}
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns or len(found), **options)


def smoothed(values: ArrayLike) -> np.ndarray:
    """Running geometric mean over a fiftieth of the curve; at the ends over as much of that as there is."""
    logs = np.log(np.maximum(np.asarray(values, dtype=float), 1e-300))
    reach, known = len(logs) // 100, np.isfinite(logs)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, logs, 0.0), known))
    low = np.maximum(np.arange(len(logs)) - reach, 0)
    high = np.minimum(np.arange(len(logs)) + reach + 1, len(logs))
    with np.errstate(invalid="ignore"):  # NaN where nothing near is a number
        return np.exp((sums[high] - sums[low]) / (counts[high] - counts[low]))
