"""The probe: finds residual functions whose rows mix points or branch on values, by running them on random values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from .channels import JetSpec, same_numbers
from .refusals import branch_message, conversion_message

_PROBE_ROWS = 64
_Columns = Mapping[str, Tensor]


class _Rows(Protocol):
    spec: JetSpec

    def rows(self, out: Tensor) -> Tensor: ...


_Record = Callable[[Tensor, _Columns], _Rows]


class _Read(Exception):
    """A number was read from values: how, or None for a branch."""


def _refusal(how: str | None) -> Any:
    def refuse(*_: object) -> Any:
        raise _Read(how)

    return refuse


class _Values(Tensor):
    """Values of a jet that refuse to become one number: a row that reads one depends on other points."""

    __bool__ = _refusal(None)
    __float__, __int__, __index__ = map(_refusal, ("to float", "to int", "to an index"))
    item, tolist = map(_refusal, ("by .item()", "by .tolist()"))


def probe(name: str, record: _Record, points: Tensor, columns: _Columns) -> None:
    """Refuse rows that mix points: a row must stay when the values and the points of other rows change."""
    if points.shape[0] == 1:
        others, theirs = points.expand(3, -1), {name: c.expand(3) for name, c in columns.items()}
    else:
        others, theirs = points[:_PROBE_ROWS], {name: c[:_PROBE_ROWS] for name, c in columns.items()}
    try:
        try:
            mixed = _mixes(record, others, theirs)
        except (RuntimeError, ValueError, TypeError) as error:
            if str(error) == branch_message(name):
                raise
            # Captured tensors that are aligned with the points fit no other number of them.
            mixed = _mixes(record, points, columns)
    except _Read as read:
        (how,) = read.args
        raise TypeError(branch_message(name) if how is None else conversion_message(name, how)) from None
    if mixed:
        raise ValueError(
            f"residual {name}: expected each row to depend on its own point alone, got rows that mix points "
            f"(a mean, a norm, an index or random numbers)"
        )


def _mixes(record: _Record, points: Tensor, columns: _Columns) -> bool:
    n, generator = points.shape[0], torch.Generator().manual_seed(0)
    first = record(points, columns)
    order = torch.randperm(n, generator=generator, device="cpu")
    other = torch.randperm(n, generator=generator, device="cpu").to(points.device)
    for lowest in (0.5, -1.0):  # positive values for logarithms and roots, then both signs

        def draw(low: float = lowest) -> Tensor:
            shape = (first.spec.n_channels, n, 1)
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
            return (uniform * (1.5 - low) + low).to(points.device, points.dtype)

        values, changed = draw(), draw()
        rows = _probed_rows(first, values)
        for keep in _masks(order, points.device):
            moved = torch.where(keep[:, None], points, points[other])
            second = record(moved, {k: torch.where(keep, c, c[other]) for k, c in columns.items()})
            if not _agree(first.spec, second.spec, keep):
                return True
            new = _probed_rows(second, torch.where(keep[:, None], values, changed))
            if not torch.allclose(rows[keep], new[keep], rtol=1e-6, atol=0.0, equal_nan=True):
                return True
    return False


def _masks(order: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Rows to keep, by the bits of a random numbering and their complements: they tell any two of 64 rows apart."""
    for bit in range(min(6, max(1, (len(order) - 1).bit_length()))):
        keep = (order >> bit) % 2 == 0
        yield keep.to(device)
        yield (~keep).to(device)


def _probed_rows(recording: _Rows, values: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        rows = recording.rows(values.clone().as_subclass(_Values).requires_grad_())
    return rows.detach().as_subclass(Tensor)


def _agree(a: JetSpec, b: JetSpec, keep: Tensor) -> bool:
    """Whether two specs ask for the same channels at the rows that were kept."""
    if a.components != b.components or a.directions != b.directions:
        return False
    pairs = ((a.beta, b.beta), (a.omega, b.omega))
    if any(x.shape != y.shape for x, y in pairs):
        return False
    return all(same_numbers(x, y) if x.shape[0] == 1 else same_numbers(x[keep], y[keep]) for x, y in pairs)
