"""Figures of a training run in one style: arrays in, figures out; matplotlib is imported when the first is drawn."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from .style import COLORS, DASHES, STYLE, legend_of, panels_of, smoothed
from .ticks import grouped, plain_within_a_decade, powers, thousands

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Record(Protocol):
    """Values at iterations, as a history has them (``history.error``)."""

    @property
    def iterations(self) -> ArrayLike:
        """When they were recorded."""
        ...

    @property
    def values(self) -> ArrayLike:
        """What was."""
        ...


Curve = tuple[ArrayLike, ArrayLike] | Record  # iterations, values


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def color_of(k: int) -> str:
    """Return the color of the k-th curve; after the last one they begin again.

    Example:
        >>> from ntkfast.plots import color_of
        >>> color_of(7) == color_of(0)
        True
    """
    return COLORS[k % len(COLORS)]


def symbol(group: str) -> str:
    r"""Return a group's name as mathematics: ``u``, ``ut`` with t as a subscript, longer and other names upright.

    Example:
        >>> from ntkfast.plots import symbol
        >>> symbol("ut"), symbol("continuity")
        ('u_{t}', '\\mathrm{continuity}')
    """
    if not group.isalnum():
        escaped = re.sub("[{}$]", r"\\\g<0>", group)
        return rf"\text{{{escaped}}}"
    if not (group.isalpha() and len(group) <= 3):
        return rf"\mathrm{{{group}}}"
    return group if len(group) == 1 else f"{group[0]}_{{{group[1:]}}}"


def _points_of(curve: Curve) -> tuple[ArrayLike, ArrayLike]:
    """Iterations and values."""
    return (curve.iterations, curve.values) if isinstance(curve, Record) else curve


@_styled
def losses(runs: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw the loss of every group, one panel a group: a run's records faint, their running geometric mean strong.

    Args:
        runs: by label of the run, by group: (iterations, losses), or what a history has of them (``history.loss``).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import losses
        >>> len(losses({"ntk": {"u": ([0, 100], [1.0, 0.1]), "r": ([0, 100], [9.0, 0.3])}}).axes)
        2
    """
    groups = list(dict.fromkeys(group for curves in runs.values() for group in curves))
    figure, axes = panels_of(len(groups), 2.3, sharex=True)
    for axis, group in zip(axes, groups, strict=True):
        for k, (label, curves) in enumerate(runs.items()):
            if group in curves:
                iterations, values = _points_of(curves[group])
                axis.semilogy(iterations, values, color=color_of(k), linewidth=0.5, alpha=0.3)
                axis.semilogy(iterations, smoothed(values), color=color_of(k), linestyle=DASHES[k % 2], label=label)
        axis.set(title=rf"$\mathcal{{L}}_{{{symbol(group)}}}$", xlabel="iteration")
        thousands(axis)
    axes[0].set_ylabel("unweighted loss")
    legend_of(figure, axes, len(runs))
    return figure


@_styled
def errors(runs: Mapping[str, Sequence[Curve]]) -> Figure:
    """Draw relative L2 errors over iterations, one colour a label, one curve a seed.

    The axis is logarithmic; where all errors lie within a decade its ticks are plain numbers.

    Args:
        runs: by label: a curve (iterations, errors), or ``history.error``, for each seed.

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import errors
        >>> errors({"ntk": [([0, 100], [1.0, 0.1])]}).axes[0].get_xlabel()
        'iteration'
    """
    figure, (axis,) = panels_of(1, 2.9)
    for k, (label, curves) in enumerate(runs.items()):
        for i, curve in enumerate(curves):
            style = {"color": color_of(k), "linestyle": DASHES[k % 2], "label": label if i == 0 else None}
            axis.semilogy(*_points_of(curve), **style)
    axis.set(xlabel="iteration", ylabel=r"relative $L^2$ error")
    plain_within_a_decade(
        axis, [np.asarray(_points_of(curve)[1], float) for curves in runs.values() for curve in curves]
    )
    thousands(axis)
    figure.legend(loc="outside lower center", ncols=len(runs))
    return figure


@_styled
def weights(curves: Mapping[str, Curve]) -> Figure:
    """Draw the loss weights λ of every group over iterations.

    Args:
        curves: by group: (iterations, weights), or ``history.weights``.

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import weights
        >>> weights({"u": ([0, 100], [1.0, 2.0])}).axes[0].get_ylabel()
        'loss weight'
    """
    figure, (axis,) = panels_of(1, 2.9)
    for k, (group, curve) in enumerate(curves.items()):
        axis.semilogy(*_points_of(curve), color=color_of(k), label=rf"$\lambda_{{{symbol(group)}}}$")
    axis.set(xlabel="iteration", ylabel="loss weight")
    thousands(axis)
    figure.legend(loc="outside lower center", ncols=len(curves))
    return figure


@_styled
def spectra(spectrum: Mapping[str, Mapping[int, ArrayLike]]) -> Figure:
    """Draw the eigenvalues of every group's kernel against their index, one curve an iteration.

    Eigenvalues below n · ε · (largest) are rounding and are left out, and so are all that are zero or negative, which
    a logarithmic axis cannot show; a curve then ends early.

    Args:
        spectrum: by group ("" for the joint kernel), by iteration: eigenvalues, descending.

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import spectra
        >>> spectra({"u": {0: [3.0, 0.2], 100: [2.0, 0.1]}}).axes[0].get_ylabel()
        'eigenvalue'
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator, NullFormatter

    figure, axes = panels_of(len(spectrum), 2.5)
    iterations = sorted({iteration for by_iteration in spectrum.values() for iteration in by_iteration})
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, len(iterations)))
    widths = np.linspace(2.6, 0.9, len(iterations))  # where curves coincide, the earlier ones still show
    for axis, (group, by_iteration) in zip(axes, spectrum.items(), strict=True):
        most = 0
        for shade, width, iteration in zip(shades, widths, iterations, strict=True):
            if iteration not in by_iteration:
                continue
            values = np.asarray(by_iteration[iteration])
            values = values[np.isfinite(values)]
            values = values[values > len(values) * np.finfo(np.float64).eps * values.max(initial=0.0)]
            most = max(most, len(values))
            marker = "." if len(values) < 10 else None
            style = {"color": shade, "linewidth": width, "marker": marker, "label": grouped(iteration)}
            axis.loglog(np.arange(1, len(values) + 1), values, **style)
        name = rf"K_{{{symbol(group)}}}" if group else "K"
        axis.set(title=rf"eigenvalues of ${name}$", xlabel="index")
        if most < 10:
            axis.set_xscale("linear")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("eigenvalue")
    legend_of(figure, axes, order=[grouped(iteration) for iteration in iterations], title="iteration")
    return figure


@_styled
def drifts(curves: Mapping[str, Curve]) -> Figure:
    """Draw relative changes since the start of training over iterations, one panel a quantity.

    Args:
        curves: by label: (iterations, ‖now − start‖ / ‖start‖).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import drifts
        >>> drifts({"kernel": ([0, 100], [0.0, 0.3])}).axes[0].get_title()
        'kernel'
    """
    figure, axes = panels_of(len(curves), 2.3)
    for k, (axis, (label, curve)) in enumerate(zip(axes, curves.items(), strict=True)):
        axis.plot(*_points_of(curve), color=color_of(k))
        axis.set(title=label, xlabel="iteration", ylim=(0, None))
        thousands(axis)
    return figure


@_styled
def modes(iterations: ArrayLike, measured: Mapping[str, ArrayLike], predicted: Mapping[str, ArrayLike]) -> Figure:
    """Draw the error along eigenvectors of the kernel, one panel each: measured, and as a frozen kernel predicts it.

    Args:
        iterations: (T,), positive, on a logarithmic axis.
        measured: by label of the mode: (T,), positive.
        predicted: the same labels: (T,).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import modes
        >>> modes([1, 10], {"first": [1.0, 0.1]}, {"first": [1.0, 0.2]}).axes[0].get_title()
        'first'
    """
    figure, axes = panels_of(len(measured), 2.1, sharex=True, sharey=True)
    everything = np.concatenate([np.asarray(values, dtype=float) for values in measured.values()])
    most = everything[np.isfinite(everything)].max(initial=1e-300)
    for axis, (label, values) in zip(axes, measured.items(), strict=True):
        axis.loglog(iterations, values, color=COLORS[0], label="measured")
        axis.loglog(iterations, predicted[label], color=COLORS[1], linestyle="--", label="frozen kernel")
        axis.set(title=label, xlabel="iteration", ylim=(1e-10 * most, 10 * most))
    axes[0].set_ylabel("squared error\nalong the mode")
    legend_of(figure, axes)
    return figure


@_styled
def profiles(x: ArrayLike, panels: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Draw functions of one variable, one panel a quantity: the first curve broad and grey, as what is to be met.

    Args:
        x: positions, (nx,).
        panels: by title, by label: (nx,).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import profiles
        >>> profiles([0, 1], {"solution": {"exact": [0.0, 1.0], "network": [0.1, 0.9]}}).axes[0].get_title()
        'solution'
    """
    figure, axes = panels_of(len(panels), 2.5)
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for k, (label, values) in enumerate(curves.items()):
            if k == 0:
                axis.plot(x, values, color="0.25", linewidth=3.0, alpha=0.5, label=label)
            else:
                axis.plot(x, values, color=color_of(k - 1), linestyle=DASHES[(k - 1) % 2], label=label)
        axis.set(title=title, xlabel="$x$")
    legend_of(figure, axes, 4)
    return figure


@_styled
def maps(t: ArrayLike, x: ArrayLike, exact: ArrayLike, predicted: ArrayLike) -> Figure:
    """Draw the exact solution, the prediction and their absolute difference over (t, x).

    The first two share the exact solution's colours; where the prediction lies beyond, its bar ends in a tip.

    Args:
        t: grid of times, (nt,).
        x: grid of positions, (nx,).
        exact: (nt, nx).
        predicted: (nt, nx).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import maps
        >>> len(maps([0, 1], [0, 1], [[0.0, 1.0], [2.0, 3.0]], [[0.1, 0.9], [2.0, 3.1]]).axes)  # with a bar each
        6
    """
    from matplotlib.ticker import MaxNLocator

    exact, predicted = np.asarray(exact), np.asarray(predicted)
    limit = float(np.abs(exact).max())
    panels = (
        (r"exact $u$", exact, "RdBu_r", -limit, limit),
        (r"predicted $\hat u$", predicted, "RdBu_r", -limit, limit),
        (r"absolute error $|\hat u - u|$", np.abs(predicted - exact), "magma", 0.0, None),
    )
    figure, axes = panels_of(3, 2.4, sharey=True)
    for axis, (title, field, colors, low, high) in zip(axes, panels, strict=True):
        image = axis.pcolormesh(t, x, field.T, cmap=colors, vmin=low, vmax=high, shading="gouraud", rasterized=True)
        axis.set(title=title, xlabel="$t$")
        axis.grid(False)
        axis.locator_params(nbins=2)
        below, above = bool((field < low).any()), high is not None and bool((field > high).any())
        tips = "both" if below and above else "min" if below else "max" if above else "neither"
        bar = {"location": "bottom", "shrink": 0.9, "ticks": MaxNLocator(3), "format": powers(), "extend": tips}
        figure.colorbar(image, ax=axis, **bar)
    axes[0].set_ylabel("$x$")
    return figure


@_styled
def slices(x: ArrayLike, times: Sequence[float], exact: ArrayLike, predictions: Mapping[str, ArrayLike]) -> Figure:
    """Draw the solution at several times, one panel a time: exact and predicted.

    Args:
        x: positions, (nx,).
        times: one a panel.
        exact: (number of times, nx).
        predictions: by label: (number of times, nx).

    Returns:
        The figure.

    Example:
        >>> from ntkfast.plots import slices
        >>> slices([0, 1], [0.5], [[0.0, 1.0]], {"network": [[0.1, 0.9]]}).axes[0].get_title()
        '$t = 0.50$'
    """
    figure, axes = panels_of(len(times), 2.3, sharey=True)
    for i, (axis, time) in enumerate(zip(axes, times, strict=True)):
        axis.plot(x, np.asarray(exact)[i], color="0.25", linewidth=3.0, alpha=0.5, label="exact")
        for k, (label, predicted) in enumerate(predictions.items()):
            axis.plot(x, np.asarray(predicted)[i], color=color_of(k), linestyle=DASHES[k % 2], label=label)
        axis.set(title=f"$t = {time:.2f}$", xlabel="$x$")
    axes[0].set_ylabel("$u(t, x)$")
    legend_of(figure, axes)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the house style; the ending of the path settles the format.

    Raises:
        ValueError: if the folder does not exist or cannot be written, or the ending is that of no format.

    Example:
        >>> import tempfile
        >>> from ntkfast.plots import save, weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(weights({"u": ([0, 100], [1.0, 2.0])}), f"{folder}/weights.png").name
        'weights.png'
    """
    import matplotlib

    path = Path(path)
    if path.suffix[1:].lower() not in (known := figure.canvas.get_supported_filetypes()):
        raise ValueError(f"expected a path that ends in one of {', '.join('.' + e for e in known)}, got {str(path)!r}")
    try:
        with matplotlib.rc_context(STYLE):  # the fonts of formulas are looked up only now
            figure.savefig(path)
    except OSError as error:
        raise ValueError(f"expected a path that can be written, got {str(path)!r}: {error.strerror}") from error
    return path
