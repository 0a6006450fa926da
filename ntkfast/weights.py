"""Adaptive loss weights from the traces of the neural tangent kernel: plain state that any training loop can use."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .residual import value
from .streaming import streaming_trace
from .sweep import as_groups, chain_args, group_args

NORMALIZE = ("mean", "sum")


class NTKWeights:
    """Loss weights λ_i = Σ_j T_j / T_i, with T_i the trace of group i's kernel over its number of rows.

    Where no trace is zero, Σ_i 1/λ_i = 1. A group whose trace is zero has a zero gradient whatever its weight is; it
    gets λ = 1. Traces that are NaN make λ NaN.

    It holds no network: a counter, the last λ and the last traces. Each call counts one iteration; λ is computed at
    calls 0, ``every``, 2·``every`` … and held between.

    Departure from the paper: it divides no trace by its rows (``normalize="sum"``); with groups of equal size, as
    there, both rules agree.

    Args:
        every: calls from one computation to the next, at least 1.
        normalize: "mean" divides each trace by the rows of its group, so that λ does not depend on group sizes; "sum"
            takes the raw traces.
        points: {group: number}: groups for whose traces the trainer draws that many fresh points when due, as the paper
            does, instead of taking the rows of its step; outside the trainer it has no effect.

    Raises:
        ValueError: ``every`` or a number of points is no positive whole number, or ``normalize`` is neither of the two.
        TypeError: ``points`` is no dict.

    Reference:
        Wang, Yu, Perdikaris: When and why PINNs fail to train, J. Comput. Phys. 449 (2022), algorithm 1 and equation
        6.5.

    Example:
        >>> import ntkfast as ntk
        >>> weights = ntk.NTKWeights(every=100)
        >>> lam = weights.update({"u": 300.0, "r": 300.0}, rows={"u": 300, "r": 100})
        >>> {name: round(value.item(), 4) for name, value in lam.items()}
        {'u': 4.0, 'r': 1.3333}
    """

    def __init__(self, every: int = 100, *, normalize: str = "mean", points: Mapping[str, int] | None = None) -> None:
        if not _positive(every):
            raise ValueError(f"NTKWeights: expected every as a positive whole number of calls, got {every!r}")
        if normalize not in NORMALIZE:
            raise ValueError(f"NTKWeights: expected normalize 'mean' or 'sum', got {normalize!r}")
        if not (points is None or isinstance(points, Mapping)):
            raise TypeError(f"NTKWeights: expected points as a dict of numbers by group, got {type(points).__name__}")
        for name, n in (points or {}).items():
            if not _positive(n):
                raise ValueError(
                    f"NTKWeights: expected a positive whole number of points for group {name!r}, got {n!r}"
                )
        self.every, self.normalize = every, normalize
        self.points: dict[str, int] | None = None if points is None else dict(points)
        self._calls = 0
        self._lam: dict[str, Tensor] = {}
        self._traces: dict[str, Tensor] = {}

    @property
    def calls(self) -> int:
        """How many iterations were counted: one for each call, one for each of the trainer's."""
        return self._calls

    @property
    def due(self) -> bool:
        """Whether the next call computes."""
        return self._calls % self.every == 0 or not self._lam

    @property
    def lam(self) -> dict[str, Tensor]:
        """The λ of the last computation, 0-d tensors by group; empty before the first."""
        return _copies(self._lam)

    @property
    def traces(self) -> dict[str, Tensor]:
        """The traces that the last λ came from, as they were given, 0-d tensors by group."""
        return _copies(self._traces)

    def __call__(
        self, net: nn.Module | Any, groups: Mapping[str, tuple[Tensor, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Count one iteration, compute λ if due, and return it: ``weights(net, groups)`` or ``weights(f)``.

        Args:
            net: the network; or ``ntk.Factors`` of a sweep already made, whose traces are nearly free.
            groups: {name: (points (n, d), residual)} with a network, None with factors.

        Returns:
            λ by group: detached 0-d tensors in the parameters' dtype, on their device.

        Raises:
            TypeError: neither a network with a dict of groups nor factors.
            ValueError: a group without rows, or, while λ is held, other groups than λ was computed for.

        Cost: one trace of every group when due, else a comparison of names.
        """
        names = self._checked_names(net, groups)
        if self.due:
            traces, rows = _measure(net, groups)
            self.update(traces, rows=rows)
        elif set(names) != set(self._lam):
            raise ValueError(f"NTKWeights: expected the groups λ was computed for, {tuple(self._lam)}, got {names}")
        self._calls += 1
        return _copies(self._lam)

    def update(
        self, traces: Mapping[str, Tensor | float], rows: Mapping[str, int] | int | None = None
    ) -> dict[str, Tensor]:
        """Compute λ from traces that were found elsewhere, now, without counting an iteration.

        Args:
            traces: tr K_i by group: 0-d tensors on one device, or numbers.
            rows: rows by group, or one number for all; needed for ``normalize="mean"``.

        Returns:
            λ by group: detached 0-d tensors of the traces' dtype (torch's default for numbers), on their device (for
            numbers the CPU).

        Raises:
            TypeError: ``traces`` that is no dict, a trace that is no real number, or rows that are no whole numbers.
            ValueError: no groups, groups without rows, rows that are missing, a trace that is not 0-d or negative, or
                traces on several devices.
        """
        if not isinstance(traces, Mapping):
            raise TypeError(f"NTKWeights: expected a dict of traces by group, got {type(traces).__name__}")
        if not traces:
            raise ValueError("NTKWeights: expected at least one group, got none")
        given = {name: _scalar(name, trace) for name, trace in traces.items()}
        devices = sorted({str(trace.device) for trace in given.values()})
        if len(devices) > 1:
            raise ValueError(f"NTKWeights: expected all traces on one device, got them on {' and '.join(devices)}")
        counts = self._counts(tuple(given), rows)
        stacked = torch.stack([trace.double() for trace in given.values()])  # (groups,)
        if self.normalize == "mean":
            stacked = stacked / torch.tensor(counts, dtype=torch.float64, device=stacked.device)
        lam = balance(stacked)
        dtypes = [_dtype_of(trace) for trace in traces.values()]
        self.keep({name: x.to(t) for name, x, t in zip(given, lam.unbind(), dtypes, strict=True)}, given)
        return _copies(self._lam)

    def count(self) -> None:
        """Count one iteration that was made elsewhere, as the trainer does; the λ that it found come by ``keep``."""
        self._calls += 1

    def keep(self, lam: Mapping[str, Tensor], traces: Mapping[str, Tensor]) -> None:
        """Take over λ that were computed elsewhere, and the traces that they came from: copies, by group."""
        self._lam, self._traces = _copies(lam), _copies(traces)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that an equal object is made from."""
        return {"every": self.every, "normalize": self.normalize, "points": self.points}

    def state_dict(self) -> dict[str, Any]:
        """Return counter, λ and traces: with ``load_state_dict`` a run resumes bit for bit."""
        return {
            "calls": self._calls,
            "lam": _copies(self._lam),
            "traces": _copies(self._traces),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; ``every`` and ``normalize`` stay those of this object.

        Raises:
            ValueError: keys other than those of ``state_dict``, or a negative counter.
            TypeError: no dict, a counter that is no whole number, or λ or traces that are no dicts of 0-d tensors.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"NTKWeights: expected a state as state_dict() returns it, got {type(state).__name__}")
        if set(state) != {"calls", "lam", "traces"}:
            found = ", ".join(sorted(map(str, state))) or "an empty one"
            raise ValueError(f"NTKWeights: expected a state with calls, lam and traces, got {found}")
        calls = _whole("calls", state["calls"])
        if calls < 0:
            raise ValueError(f"NTKWeights: expected calls >= 0, got {calls}")
        for what in ("lam", "traces"):
            _check_scalars(what, state[what])
        self._calls = calls
        self.keep(state["lam"], state["traces"])

    def __repr__(self) -> str:
        """Return the settings and how many calls were counted."""
        return f"NTKWeights(every={self.every}, normalize={self.normalize!r}, calls={self._calls})"

    def _checked_names(self, net: Any, groups: Any) -> tuple[str, ...]:
        if isinstance(net, nn.Module):
            if not isinstance(groups, Mapping):
                got = type(groups).__name__
                raise TypeError(
                    f"NTKWeights: expected a dict of groups {{name: (points, residual)}} with a network, got {got}"
                )
            return tuple(groups)
        if groups is not None or not hasattr(net, "slices"):
            raise TypeError(f"NTKWeights: expected (network, groups) or factors alone, got {type(net).__name__} first")
        return tuple(net.names)

    def _counts(self, names: tuple[str, ...], rows: Mapping[str, int] | int | None) -> list[int]:
        if rows is None:
            if self.normalize == "mean":
                raise ValueError('NTKWeights: expected the rows of each group for normalize="mean", got None')
            return []
        counts = dict(rows) if isinstance(rows, Mapping) else dict.fromkeys(names, _whole("rows", rows))
        if set(counts) != set(names):
            raise ValueError(f"NTKWeights: expected rows for the groups {names}, got them for {tuple(counts)}")
        for name in names:
            if _whole(f"the rows of group {name!r}", counts[name]) < 1:
                raise ValueError(f"NTKWeights: expected at least one row in group {name!r}, got {counts[name]}")
        return [counts[name] for name in names]


def balance(traces: Tensor) -> Tensor:
    """Return λ_i = Σ_j T_j / T_i, and 1 where T_i = 0, from the traces over their rows, (groups,).

    It looks at no number, so that it can run inside a CUDA graph.
    """
    return torch.where(traces == 0, torch.ones_like(traces), traces.sum() / traces)


def _copies(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers elsewhere: what a caller does to them stays with the caller."""
    return {name: value.detach().clone() for name, value in numbers.items()}


def _positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _whole(what: str, number: Any) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"NTKWeights: expected {what} as a whole number, got {number!r}") from None


def _check_scalars(what: str, numbers: object) -> None:
    if not isinstance(numbers, Mapping):
        raise TypeError(f"NTKWeights: expected {what} as a dict of 0-d tensors by group, got {type(numbers).__name__}")
    for name, number in numbers.items():
        if not (isinstance(number, Tensor) and number.ndim == 0):
            got = f"shape {tuple(number.shape)}" if isinstance(number, Tensor) else type(number).__name__
            raise TypeError(f"NTKWeights: expected {what} of group {name!r} as a 0-d tensor, got {got}")


def _real(number: Any) -> Tensor | None:
    """The number, or tensor of numbers, as a tensor of its own; None where it is none or not real."""
    if isinstance(number, Tensor):
        return None if number.is_complex() else number.detach().clone()
    try:
        number = None if isinstance(number, str | bytes) else float(number)
        return None if number is None else torch.tensor(number, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError):
        return None


def _dtype_of(trace: Tensor | float) -> torch.dtype:
    """The floating type of a λ: the trace's, torch's default for what has none."""
    return trace.dtype if isinstance(trace, Tensor) and trace.is_floating_point() else torch.get_default_dtype()


def _scalar(name: str, trace: Tensor | float) -> Tensor:
    value = _real(trace)
    if value is None:
        got = trace.dtype if isinstance(trace, Tensor) else type(trace).__name__
        raise TypeError(f"NTKWeights: expected a real number as the trace of group {name!r}, got {got}")
    if not value.is_floating_point():
        value = value.double()
    if value.ndim != 0:
        raise ValueError(f"NTKWeights: expected a 0-d trace for group {name!r}, got shape {tuple(value.shape)}")
    # Only where a look at the number does not wait for a device. NaN passes: it makes λ NaN.
    if value.device.type == "cpu" and value < 0:
        raise ValueError(f"NTKWeights: expected a trace >= 0 for group {name!r}, got {value.item()}")
    return value


def _measure(net: Any, groups: Mapping[str, tuple[Tensor, Any]] | None) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return traces and rows by group, from factors or from a network and its groups."""
    if groups is None:
        found = net.trace()
        traces = found if isinstance(found, Mapping) else {net.names[0]: found}
        return dict(traces), {name: net.slices[name].stop - net.slices[name].start for name in net.names}
    if not groups:
        raise ValueError("NTKWeights: expected at least one group, got none")
    chain, args = chain_args(net)
    prepared = group_args(chain, as_groups(groups, value)[0])
    rows = {name: own.stop - own.start for name, own in prepared.slices.items()}
    for name, count in rows.items():
        if count == 0:
            raise ValueError(f"NTKWeights: expected at least one row in group {name!r}, got 0")
    layers = streaming_trace(chain, args, prepared, None)
    return {name: own.sum().to(chain.dtype) for name, own in layers.items()}, rows
