"""What a sweep leaves behind: residual rows and the stacks A and D of all layers, at one θ."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import _ops
from .chain import Chain
from .kept import Kept
from .sweep import ChainArgs, GroupArgs, stash_size


class Workspace:
    """Buffers that a training loop reuses: factors made with one are valid until the next ones are made with it.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net, x, buffers = ntk.MLP([2, 8, 1]), torch.rand(5, 2), ntk.Workspace()
        >>> first = ntk.factors(net, x, workspace=buffers)
        >>> ntk.factors(net, x, workspace=buffers).gram().shape
        torch.Size([5, 5])
        >>> first.gram()
        Traceback (most recent call last):
        ValueError: expected factors whose buffers are still theirs, got some that a later sweep with the same ...
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self.sweeps = 0  # made with these buffers: a snapshot is that of the newest one, or gone

    def take(self, name: str, count: int, like: Tensor) -> Tensor:
        """A flat tensor of `count` elements, dtype and device as `like`; its content is arbitrary."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() != count or buffer.dtype != like.dtype or buffer.device != like.device:
            buffer = torch.empty(count, dtype=like.dtype, device=like.device)
            self._buffers[name] = buffer
        return buffer


def as_workspace(given: Workspace | None) -> Workspace:
    """The caller's buffers, or new ones.

    Raises:
        TypeError: neither.
    """
    if not isinstance(given, Workspace | None):
        raise TypeError(f"expected an ntk.Workspace or None, got {type(given).__name__}")
    return Workspace() if given is None else given


_KEPT_BYTES = 64 * 2**20  # a thread, and a side of a gram
_kept = threading.local()


@contextmanager
def scratch(side: str, size: int, device: torch.device) -> Iterator[Workspace]:
    """Buffers for a sweep that nobody keeps: those of the thread's last one, unless they would hold much memory.

    Fresh memory costs a page fault each 4 kB, which at small sizes is a third of a gram. While they are in use, a call
    from within a residual gets others. A GPU's memory comes from torch, which keeps it for streams and graphs apart.
    """
    if size > _KEPT_BYTES or device.type != "cpu":
        yield Workspace()
        return
    own = _kept.__dict__.pop(side, None) or Workspace()
    try:
        yield own
    finally:
        setattr(_kept, side, own)


@dataclass(frozen=True)
class Snapshot:
    """What a sweep leaves behind."""

    chain: Chain
    args: ChainArgs
    groups: GroupArgs
    values: Tensor  # (N,), residual rows
    A: Tensor  # flat stacks
    D: Tensor
    workspace: Workspace  # that A and D belong to
    sweep: int  # its count when they were made
    kept: Kept[Tensor] = field(default_factory=lambda: Kept(1))

    def check(self) -> Snapshot:
        """This snapshot, unless a later sweep has overwritten it.

        Raises:
            ValueError: it has.
        """
        if self.workspace.sweeps != self.sweep:
            raise ValueError(
                "expected factors whose buffers are still theirs, got some that a later sweep with the same workspace "
                "has overwritten"
            )
        return self

    def layer_diag(self) -> Tensor:
        """The diagonal by layers, (layers, N) in float64, computed once."""

        def make() -> Tensor:
            size = len(self.chain.layers), self.groups.residual_rows
            result = torch.empty(size, dtype=torch.float64, device=self.A.device)
            _ops.factor_diag(self.args, self.groups.spec, self.A, self.D, result)
            return result

        return self.kept.get("diag", self.A.device, make)


def sweep(
    chain: Chain, args: ChainArgs, groups: GroupArgs, workspace: Workspace, seeds: list[Tensor] | None = None
) -> Snapshot:
    """Both sweeps: output channels, rows and seeds, cotangents. Where seeds are given, rows are not asked for."""
    like, widths = args.parameters[0], chain.widths
    workspace.sweeps += 1
    A = workspace.take("A", groups.rows * sum(widths[:-1]), like)
    D = workspace.take("D", groups.cotangent_rows * sum(widths[1:]), like)
    if groups.rows == 0:
        return Snapshot(chain, args, groups, like.new_empty(0), A, D, workspace, workspace.sweeps)
    if groups.linear:
        rows = linear_rows(args, groups, seeds, A, D)
        return Snapshot(chain, args, groups, rows, A, D, workspace, workspace.sweeps)
    out = workspace.take("out", groups.rows * chain.out_features, like)
    Z = workspace.take("Z", stash_size(chain, groups.rows), like)
    _ops.jet_forward(args, groups, out, A, Z)
    values = [like.new_empty(0)]
    if seeds is None:
        seeds = []
        for recording, channels in zip(groups.recordings, groups.outputs(out, chain.out_features), strict=True):
            rows, own = recording.evaluate(channels)
            values.append(rows.reshape(-1))
            seeds += own
    _ops.jet_backward(args, groups, seeds, Z, D)
    return Snapshot(chain, args, groups, torch.cat(values), A, D, workspace, workspace.sweeps)


def linear_rows(args: ChainArgs, groups: GroupArgs, seeds: list[Tensor] | None, A: Tensor, D: Tensor) -> Tensor:
    """Rows of linear residuals, (N,), and their stacks into A and D: tile by tile, no stash is stored.

    Where seeds are given the rows are not asked for: they lack the terms without u.
    """
    nothing, offset = A.new_empty(0), None
    if seeds is None:
        seeds = [seed for recording in groups.recordings for seed in recording.seeds()]
        offset = groups.offset()
    rows = A.new_empty(groups.residual_rows)
    unasked = [nothing] * len(args.parameters)
    _ops.linear_sweep(
        *(args, groups, seeds, nothing if offset is None else offset, nothing, 0),
        *(rows, unasked, A.new_empty(0, dtype=torch.float64), A, D),
    )
    return rows


def layer_stacks(snapshot: Snapshot, i: int) -> tuple[Tensor, Tensor]:
    """The ragged stacks of layer i: A (rows, n_in) and D (cotangent rows, n_out)."""
    widths = snapshot.chain.widths
    rows, cotangents = snapshot.groups.rows, snapshot.groups.cotangent_rows
    a, d = rows * sum(widths[:i]), cotangents * sum(widths[1 : i + 1])
    A = snapshot.A[a : a + rows * widths[i]].view(rows, widths[i])
    D = snapshot.D[d : d + cotangents * widths[i + 1]].view(cotangents, widths[i + 1])
    return A, D


def group_stacks(snapshot: Snapshot, i: int, name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The stacks of layer i for one group: A (C, n, n_in) and one D (C_j, n, n_out) a component."""
    A, D = layer_stacks(snapshot, i)
    at = snapshot.groups.names.index(name)
    sizes, specs = snapshot.groups.sizes, [recording.spec for recording in snapshot.groups.recordings]
    row = sum(n * spec.n_channels for n, spec in zip(sizes[:at], specs[:at], strict=True))
    cotangent = sum(n * sum(spec.n_cotangents) for n, spec in zip(sizes[:at], specs[:at], strict=True))
    n, spec, parts = sizes[at], specs[at], []
    for channels in spec.n_cotangents:
        parts.append(D[cotangent : cotangent + channels * n].view(channels, n, D.shape[1]))
        cotangent += channels * n
    return A[row : row + spec.n_channels * n].view(spec.n_channels, n, A.shape[1]), tuple(parts)


def group_jacobian(snapshot: Snapshot, name: str) -> Tensor:
    """The rows of J of one group, point-major."""
    groups = snapshot.groups
    recording = groups.recordings[groups.names.index(name)]
    n = groups.sizes[groups.names.index(name)]
    columns = [snapshot.values.new_empty(n * recording.n_components, 0)]
    for i in range(len(snapshot.chain.layers)):
        A, parts = group_stacks(snapshot, i, name)
        scale, shift = snapshot.args.constants[6 * i + 2 : 6 * i + 4]
        weight, bias = snapshot.args.active(i)
        bias_first = snapshot.chain.layers[i].bias_first
        for is_bias in (bias_first, not bias_first):
            if is_bias and bias:
                columns.append(shift * torch.stack([D[0] for D in parts], 1).flatten(0, 1))
            elif weight and not is_bias:
                J = [torch.einsum("cno,cni->noi", D, A[list(recording.spec.channels(j))]) for j, D in enumerate(parts)]
                columns.append(scale * torch.stack(J, 1).flatten(2).flatten(0, 1))
    return torch.cat(columns, 1)
