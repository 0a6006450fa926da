"""What a kernel will cost, layer by layer, before it is computed; and why a network is not native."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .chain import Chain, chain_of, check_order, select
from .cost import GramPath, factor_entries, gram_cost, gram_paths, sweep_cost, trace_cost
from .networks import ACTIVATIONS
from .recording import record

_NAMES = {number: name for name, number in ACTIVATIONS.items()}
_PROBES = 3  # points on which the residual is recorded


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a plan: sizes, the way to its part of the gram, and multiply–adds (its bias left out)."""

    name: str
    n_in: int
    n_out: int
    activation: str
    trained: str  # "weight, bias", "weight", "bias" or "frozen"
    path: GramPath
    sweep: int  # one direction
    trace: int
    gram: int  # one triangle


@dataclass(frozen=True)
class Plan:
    """What ``ntk.plan`` found; ``print`` shows it as a table.

    Attributes:
        native: whether the native core runs this network and residual.
        reason: why not; empty if native.
        points: n.
        rows: n·k for k components.
        channels: channels of each component by its name ("" for a lone one).
        sweep_channels: channels of the forward sweep that all components share.
        dtype: type of the parameters.
        layers: one entry for each Linear.
        memory: bytes of "factors", "gram", and of the "jacobian" that is never formed.
    """

    native: bool
    reason: str
    points: int
    rows: int = 0
    channels: tuple[tuple[str, int], ...] = ()
    sweep_channels: int = 0
    dtype: torch.dtype | None = None
    layers: tuple[LayerPlan, ...] = ()
    memory: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Return the table, or the reason why there is none."""
        if not self.native:
            return f"not native: {self.reason}"
        shown = ", ".join(f"{name}: {count}" if name else str(count) for name, count in self.channels)
        head = f"{self.points} points, {self.rows} rows, {self.dtype}; channels {shown} (sweep: {self.sweep_channels})"
        titles = ("layer", "in", "out", "activation", "parameters", "gram path", "sweep", "trace", "gram")
        rows = [
            (x.name, str(x.n_in), str(x.n_out), x.activation, x.trained, x.path, *map(_si, (x.sweep, x.trace, x.gram)))
            for x in self.layers
        ]
        total = ("total", "", "", "", "", "", *map(_si, self.totals()))
        widths = [max(len(row[i]) for row in (titles, total, *rows)) for i in range(len(titles))]
        table = (
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in (titles, *rows, total)
        )
        memory = ", ".join(f"{name} {_si(count)}B" for name, count in self.memory)
        foot = "costs in multiply-adds, the sweep in one direction, the gram as one triangle"
        return "\n".join(
            [head, *(line.rstrip() for line in table), foot, f"memory: {memory} (the jacobian is never formed)"]
        )

    __repr__ = __str__

    def totals(self) -> tuple[int, int, int]:
        """Return the multiply–adds of a sweep in one direction, the trace and the gram, all layers together."""
        return tuple(sum(getattr(x, kind) for x in self.layers) for kind in ("sweep", "trace", "gram"))  # type: ignore[return-value]


def plan(net: nn.Module, residual: Any, n: int = 300) -> Plan:
    """Tell what trace and gram of a residual cost on n points, by the formulas of ``ntkfast.cost``.

    Args:
        net: a network.
        residual: what the rows are. It is run on a few random points of [0, 1]ᵈ to find its channels.
        n: points.

    Returns:
        The plan; ``print(ntk.plan(net, residual))`` shows a table. For a network or residual that the native core
        refuses it holds the reason instead.

    Raises:
        ValueError: n is no whole number or negative.

    Cost: microseconds; no sweep.

    Example:
        >>> import ntkfast as ntk
        >>> found = ntk.plan(ntk.MLP([2, 500, 500, 1]), ntk.value, n=300)
        >>> found.native, [layer.path for layer in found.layers]
        (True, ['structured', 'structured', 'structured'])
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"plan: expected n as a whole number of points, at least 0, got {n!r}")
    try:
        chain = chain_of(net)
        generator = torch.Generator().manual_seed(0)
        probes = torch.rand(_probes(residual), chain.in_features, generator=generator, dtype=torch.float64)
        recording = record(residual, probes.to(chain.device, chain.dtype), chain.out_features)
        check_order(chain, recording.spec.order)
    except (TypeError, ValueError) as refusal:
        return Plan(native=False, reason=str(refusal), points=n)
    spec = recording.spec
    channels = tuple(1 + len(directions) + len(collapsed) for directions, collapsed in spec.components)
    names = tuple(recording.names) if len(recording.names) == len(channels) else tuple(map(str, range(len(channels))))
    return _planned(chain, names, channels, 1 + len(spec.directions) + spec.collapsed, n)


def _probes(residual: Any) -> int:
    # Coefficients aligned with the points fix their number.
    coefficients = getattr(residual, "coefficients", {}).values()
    return max((c.shape[0] for c in coefficients if isinstance(c, Tensor) and c.ndim > 0), default=_PROBES)


def _planned(chain: Chain, names: tuple[str, ...], channels: tuple[int, ...], sweep_channels: int, n: int) -> Plan:
    # Every pair of components is one block of the gram; with Σ C channels in all, the structured blocks add up to
    # those of one component with ΣC channels on n rows, and the explicit ones to a gram of n·k rows.
    layers = []
    entries, trained_numbers = 0, 0
    rows, size = n * len(channels), chain.layers[0].weight.element_size()
    paths = gram_paths(chain.widths, -(-sum(channels) // max(len(channels), 1)), rows)
    for layer, path, (weight, bias) in zip(chain.layers, paths, select(chain), strict=True):
        n_out, n_in = layer.weight.shape
        entries += sum(factor_entries(n_in, n_out, c, n) for c in channels)
        trained_numbers += weight * n_in * n_out + bias * n_out
        trained = ", ".join(name for name, used in (("weight", weight), ("bias", bias)) if used) or "frozen"
        layers.append(
            LayerPlan(
                name=layer.name or "(identity)",
                n_in=n_in,
                n_out=n_out,
                activation=_NAMES[layer.activation],
                trained=trained,
                path=path,
                sweep=sweep_cost(n_in, n_out, sweep_channels, n),
                trace=sum(trace_cost(n_in, n_out, c, n) for c in channels) if weight else 0,
                gram=_gram_total(path, n_in, n_out, channels, n) if weight else 0,
            )
        )
    memory = (("factors", entries * size), ("gram", rows * rows * size), ("jacobian", rows * trained_numbers * size))
    return Plan(
        native=True,
        reason="",
        points=n,
        rows=rows,
        channels=tuple(zip(names, channels, strict=True)),
        sweep_channels=sweep_channels,
        dtype=chain.dtype,
        layers=tuple(layers),
        memory=memory,
    )


def _gram_total(path: GramPath, n_in: int, n_out: int, channels: tuple[int, ...], n: int) -> int:
    if path == "structured":
        return gram_cost(path, n_in, n_out, sum(channels), n)
    products = gram_cost(path, n_in, n_out, 0, n * len(channels))
    return products + sum(sweep_cost(n_in, n_out, c, n) for c in channels)


def _si(number: int) -> str:
    value, units = float(number), ("", "k", "M", "G", "T", "P")
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{value:.4g}{unit}" if unit else str(number)
        value /= 1000
    raise AssertionError
