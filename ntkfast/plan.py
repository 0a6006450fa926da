"""What a kernel will cost, layer by layer, before it is computed; and why a network is not native."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .chain import Chain, chain_of, check_order
from .contraction import mean_channels
from .cost import GramPath, factor_entries, gram_cost, gram_paths, sweep_cost, trace_cost
from .networks import ACTIVATIONS
from .recording import Recording, record
from .residual import Residual, value
from .selection import select
from .sweep import as_groups, group_args
from .tiles import gram_depth, shared_products

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
        points: n, of all groups together.
        rows: n·k for k components, of all groups together.
        channels: channels of each component by its name: "" for a lone one, the group's for its lone one, else
            "group.component".
        sweep_channels: channels of the forward sweep that the components of a group share, all groups together.
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


@dataclass(frozen=True)
class _Part:
    """One group of a plan."""

    n: int
    names: tuple[str, ...]
    channels: tuple[int, ...]  # of each component
    sweep_channels: int
    linear: bool


def plan(net: nn.Module, points: Any = None, residual: Any = None, *, n: int | None = None) -> Plan:
    """Tell what trace and gram of a residual cost, by the formulas of ``ntkfast.cost``.

    Args:
        net: a network.
        points: (n, d), as the other verbs take them; or a dict of groups (points, residual); or a residual alone,
            which is planned for n points. Alone it is run on a few random points of [0, 1]ᵈ to find its channels, and
            whatever it reads of ``at`` besides its coordinates counts as a column that travels with the points.
        residual: what the rows are; the outputs themselves by default.
        n: points, for a residual alone; 300 if None.

    Returns:
        The plan; ``print(ntk.plan(net, residual))`` shows a table. For a network or residual that the native core
        refuses it holds the reason instead.

    Raises:
        ValueError: n is no whole number or negative, or beside points.
        TypeError: neither points nor a residual, or two residuals.

    Cost: microseconds; no sweep.

    Example:
        >>> import ntkfast as ntk
        >>> found = ntk.plan(ntk.MLP([2, 500, 500, 1]), ntk.value, n=300)
        >>> found.native, [layer.path for layer in found.layers]
        (True, ['structured', 'structured', 'structured'])
    """
    alone = _alone(points, residual)
    if alone is None:
        if n is not None:
            raise ValueError(f"plan: expected n only where there are no points, got n={n!r} beside them")
        size = sum(len(x) for x, _ in points.values()) if isinstance(points, Mapping) else len(points)
    else:
        size = 300 if n is None else n
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"plan: expected n as a whole number of points, at least 0, got {n!r}")
    try:
        chain = chain_of(net)
        if alone is not None:
            parts = [_part("", size, _recorded(chain, alone))]
        else:
            args = group_args(chain, as_groups(points, value if residual is None else residual)[0])
            parts = [_part(*group) for group in zip(args.names, args.sizes, args.recordings, strict=True)]
    except (TypeError, ValueError) as refusal:
        return Plan(native=False, reason=str(refusal), points=size)
    return _planned(chain, parts)


def _alone(points: Any, residual: Any) -> Residual | None:
    """The residual of a call without points; None for a call with points."""
    if points is None:
        points, residual = residual, None
    if isinstance(points, Residual):
        if residual is not None:
            raise TypeError(
                f"plan: expected (net, residual, n=300) or (net, points, residual), got {residual!r} after a residual"
            )
        return points
    if isinstance(points, Mapping):
        for name, (x, _) in as_groups(points, value)[0].items():  # refuses groups that are no pairs
            if not isinstance(getattr(x, "xy", x), Tensor):
                raise TypeError(f"plan: expected points of group {name!r} as a tensor, got {type(x).__name__}")
    elif not isinstance(getattr(points, "xy", points), Tensor):
        raise TypeError(f"plan: expected points, a dict of groups or a residual, got {type(points).__name__}")
    return None


class _AnyColumn(dict[str, Tensor]):
    """Columns of whatever name a residual asks for."""

    def __init__(self, residual: Residual, like: Tensor) -> None:
        super().__init__()
        self._coordinates, self._like = residual.coordinates, like

    def __contains__(self, name: object) -> bool:
        return name not in self._coordinates

    def __missing__(self, name: str) -> Tensor:
        self[name] = torch.linspace(0.1, 0.9, len(self._like), dtype=self._like.dtype, device=self._like.device)
        return self[name]


def _recorded(chain: Chain, residual: Residual) -> Recording:
    # Coefficients aligned with the points fix their number.
    aligned = [c.shape[0] for c in residual.coefficients.values() if isinstance(c, Tensor) and c.ndim > 0]
    size = max(aligned, default=_PROBES)
    generator = torch.Generator().manual_seed(0)
    probes = torch.rand(size, chain.in_features, generator=generator, dtype=torch.float64, device="cpu")
    probes = probes.to(chain.device, chain.dtype)
    recording = record(residual, probes, chain.out_features, _AnyColumn(residual, probes))
    check_order(chain, recording.spec.order)
    return recording


def _part(group: str, n: int, recording: Recording) -> _Part:
    spec = recording.spec
    channels = spec.n_cotangents
    names = recording.names if len(recording.names) == len(channels) else tuple(map(str, range(len(channels))))
    shown = tuple(".".join(filter(None, (group, name))) for name in names)
    return _Part(n, shown, channels, spec.n_channels, recording.linear)


def _planned(chain: Chain, parts: list[_Part]) -> Plan:
    components = [(c, part.n) for part in parts for c in part.channels]
    rows, channel_rows = sum(n for _, n in components), sum(c * n for c, n in components)
    shared = shared_products(chain, rows / max(sum(part.n for part in parts), 1))
    channels = mean_channels(channel_rows, rows)
    paths = gram_paths(chain.widths, channels, rows, shared=shared, depth=gram_depth(chain))
    layers = []
    entries, trained_numbers, stash = 0, 0, not all(part.linear for part in parts)
    size = chain.layers[0].weight.element_size()
    for layer, path, (weight, bias) in zip(chain.layers, paths, select(chain), strict=True):
        n_out, n_in = layer.weight.shape
        entries += sum(factor_entries(n_in, n_out, p.sweep_channels, p.n, sum(p.channels), stash) for p in parts)
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
                sweep=sum(sweep_cost(n_in, n_out, part.sweep_channels, part.n) for part in parts),
                trace=sum(trace_cost(n_in, n_out, c, n) for c, n in components) if weight else 0,
                gram=_gram_total(path, n_in, n_out, components, shared) if weight else 0,
            )
        )
    memory = (("factors", entries * size), ("gram", rows * rows * size), ("jacobian", rows * trained_numbers * size))
    return Plan(
        native=True,
        reason="",
        points=sum(part.n for part in parts),
        rows=rows,
        channels=tuple(pair for part in parts for pair in zip(part.names, part.channels, strict=True)),
        sweep_channels=sum(part.sweep_channels for part in parts),
        dtype=chain.dtype,
        layers=tuple(layers),
        memory=memory,
    )


def _gram_total(path: GramPath, n_in: int, n_out: int, components: list[tuple[int, int]], shared: float) -> int:
    # Every pair of components is one block of the gram; together they cost as much as one component with one channel
    # on Σ C n rows (structured; of these the products of inputs are shared), or as a product of Jacobians with Σ n rows
    # and the making of these (explicit).
    if path == "structured":
        rows = sum(c * n for c, n in components)
        return round(gram_cost(path, n_in, 0, 1, rows) / shared) + gram_cost(path, 0, n_out, 1, rows)
    products = gram_cost(path, n_in, n_out, 0, sum(n for _, n in components))
    return products + sum(sweep_cost(n_in, n_out, c, n) for c, n in components)


def _si(number: int) -> str:
    value, units = float(number), ["", "k", "M", "G", "T", "P"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g}{units[0]}" if units[0] else str(number)
