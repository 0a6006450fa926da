"""What a native sweep is called with: the chain and the ragged stack of groups, as flat lists.

Row order is that of csrc/core/params.h: a group with C channels and n points owns C·n rows of A and Z, channel by
channel; component j owns C_j·n rows of D; residual rows are point-major: ``rows.view(n, k)`` is points by components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from . import _C
from .chain import Chain, chain_of, check_order
from .recording import Recording, record
from .residual import Residual, check_finite, check_points
from .selection import select

Group = tuple[Any, Residual]  # (points, residual); points is a tensor (n, d), or has .xy and .columns
Groups = Mapping[str, Group]


@dataclass(frozen=True, slots=True)
class ChainArgs:
    """A chain as the native operators take it."""

    parameters: list[Tensor]  # W_0, b_0, …; empty where there is no bias
    activations: list[int]
    constants: list[float]  # per layer: weight scale, bias scale, both again for θ in the Jacobian, β, threshold
    selected: tuple[tuple[bool, bool], ...]  # per layer: whether weight and bias are in the Jacobian

    def active(self, layer: int) -> tuple[bool, bool]:
        """Whether the weight and the bias of a layer are in the Jacobian."""
        return self.selected[layer]

    @property
    def jacobian_scales(self) -> tuple[list[float], list[float]]:
        """The factors of weights and of biases in the Jacobian, by layer."""
        return self.constants[2::6], self.constants[3::6]


@dataclass(frozen=True, slots=True)
class GroupArgs:
    """Groups as the native operators take them, and the recordings that they come from."""

    names: tuple[str, ...]
    recordings: tuple[Recording, ...]
    points: list[Tensor]  # (n, d), standardised
    beta: list[Tensor]  # (1 or n, F+M, d), standardised
    omega: list[Tensor]  # (1 or n, M, F)
    spec: list[int]
    sizes: tuple[int, ...]  # n of each group

    @property
    def rows(self) -> int:
        """Rows of A and Z."""
        return sum(n * r.spec.n_channels for n, r in zip(self.sizes, self.recordings, strict=True))

    @property
    def cotangent_rows(self) -> int:
        """Rows of D."""
        return sum(n * sum(r.spec.n_cotangents) for n, r in zip(self.sizes, self.recordings, strict=True))

    @property
    def slices(self) -> dict[str, slice]:
        """The residual rows of each group."""
        found, start = {}, 0
        for name, n, r in zip(self.names, self.sizes, self.recordings, strict=True):
            found[name] = slice(start, start + n * r.n_components)
            start += n * r.n_components
        return found

    @property
    def residual_rows(self) -> int:
        """N."""
        return sum(n * r.n_components for n, r in zip(self.sizes, self.recordings, strict=True))

    def select(self, names: Sequence[str]) -> list[int]:
        """The same description with only some groups taking part."""
        return encode(self.sizes, self.recordings, [name in names for name in self.names])

    @property
    def linear(self) -> bool:
        """Whether every row is linear in the output channels: then the seeds are known before them."""
        return all(recording.linear for recording in self.recordings)

    def offset(self, targets: Tensor | None = None) -> Tensor | None:
        """What linear rows are below Σ seeds · channels: targets, less the terms without u; (N,), None where zero."""
        if not any(recording.has_source for recording in self.recordings):
            return targets
        offset = self.points[0].new_zeros(self.residual_rows) if targets is None else targets.clone()
        for own, recording in zip(self.slices.values(), self.recordings, strict=True):
            if recording.has_source:
                recording.subtract_source(offset[own].view(-1, recording.n_components))
        return offset

    def outputs(self, out: Tensor, n_outputs: int) -> list[Tensor]:
        """Cut flat output channels into one (C, n, o) a group."""
        parts, start = [], 0
        for n, r in zip(self.sizes, self.recordings, strict=True):
            count = n * r.spec.n_channels * n_outputs
            parts.append(out[start : start + count].view(r.spec.n_channels, n, n_outputs))
            start += count
        return parts


def as_groups(points: Any, residual: Residual) -> tuple[dict[str, Group], bool]:
    """Return the groups of a call, and whether the caller gave a dict of them.

    Raises:
        TypeError: a group that is no pair (points, residual).
    """
    if not isinstance(points, Mapping):
        _check_residual("residual", residual)
        return {"": (points, residual)}, False
    for name, group in points.items():
        if not isinstance(name, str):
            raise TypeError(f"expected group names that are strings, got {name!r}")
        if not isinstance(group, tuple) or len(group) != 2:
            raise TypeError(f"group {name!r}: expected (points, residual), got {type(group).__name__}")
        _check_residual(f"group {name!r}", group[1])
    return dict(points), True


def _check_residual(where: str, residual: object) -> None:
    if not isinstance(residual, Residual):
        raise TypeError(
            f"{where}: expected a residual (ntk.value, or a function under @ntk.residual(…)), got "
            f"{getattr(residual, '__name__', type(residual).__name__)}"
        )


def chain_args(net: nn.Module, wrt: str | Sequence[str] | None = None) -> tuple[Chain, ChainArgs]:
    """Return the chain of a network and its native form."""
    chain = chain_of(net)
    parameters, activations, constants = [], [], []
    selected = select(chain, wrt)
    for layer, (weight, bias) in zip(chain.layers, selected, strict=True):
        w = layer.weight.detach()
        b = w.new_empty(0) if layer.bias is None else layer.bias.detach()
        parameters += [w.contiguous(), b.contiguous()]
        activations.append(layer.activation)
        constants += [layer.weight_scale, layer.bias_scale]
        constants += [layer.weight_scale if weight else 0.0, layer.bias_scale if bias else 0.0]
        constants += [layer.beta, layer.threshold]
    if chain.device.type != "cpu" and not (chain.device.type == "cuda" and _C.cuda_built):
        has = "this build is for the CPU and CUDA" if _C.cuda_built else "this build has no CUDA"
        raise ValueError(f"expected a network on the CPU or a CUDA device, got {chain.device}: {has}")
    return chain, ChainArgs(parameters, activations, constants, selected)


def group_args(chain: Chain, groups: Groups, finite: bool = True) -> GroupArgs:
    """Record every group's residual on its points and lay the groups out as one ragged stack.

    Args:
        chain: the network.
        groups: points and residual by name.
        finite: look whether the points are finite, which waits for the device.

    Raises:
        TypeError: points of the wrong type.
        ValueError: points that do not fit the network or the residual, or are not finite.
    """
    points, beta, omega, recordings = [], [], [], []
    for name, (where, residual) in groups.items():
        x = check_group(chain, name, where, residual, finite)
        recording = record(residual, x, chain.out_features, getattr(where, "columns", None))
        check_order(chain, recording.spec.order)
        recordings.append(recording)
        slope = recording.spec.beta
        if chain.shift is not None and chain.scale is not None:
            x, slope = (x - chain.shift) / chain.scale, slope / chain.scale
        points.append(x.contiguous())
        beta.append(slope.contiguous())
        omega.append(recording.spec.omega.contiguous())
    sizes = tuple(x.shape[0] for x in points)
    spec = encode(sizes, recordings, [True] * len(sizes))
    return GroupArgs(tuple(groups), tuple(recordings), points, beta, omega, spec, sizes)


def check_group(chain: Chain, name: str, where: Any, residual: Residual, finite: bool = True) -> Tensor:
    """Return the points of a group as a detached tensor (n, d) that fits the network."""
    x = getattr(where, "xy", where)
    label = f"group {name!r}: " if name else ""
    check_points(residual, x, finite=False)
    if x.shape[1] != chain.in_features:
        raise ValueError(f"{label}expected points with {chain.in_features} columns, like the network, got {x.shape[1]}")
    if x.dtype != chain.dtype or x.device != chain.device:
        raise ValueError(
            f"{label}expected points like the network's parameters ({chain.dtype} on {chain.device}), got "
            f"{x.dtype} on {x.device}"
        )
    if finite:
        check_finite(f"residual {residual.name}", x)
    return x.detach()


def encode(sizes: Sequence[int], recordings: Sequence[Recording], selected: Sequence[bool]) -> list[int]:
    """Return the numbers that describe the groups to the native operators (csrc/ops/sweep_args.h)."""
    spec: list[int] = []
    for n, recording, chosen in zip(sizes, recordings, selected, strict=True):
        jet = recording.spec
        spec += [n, len(jet.directions), jet.collapsed, len(jet.components), int(chosen)]
        for directions, collapsed in jet.components:
            spec += [len(directions), len(collapsed), *directions, *collapsed]
    return spec


def part_of(groups: GroupArgs, start: int, stop: int) -> GroupArgs:
    """The points start … stop−1 of a lone group, with their β and ω; its recording stays that of all."""
    assert len(groups.sizes) == 1
    cut = [
        [t[start:stop] if t.shape[0] == groups.sizes[0] and t.shape[0] != 1 else t for t in tensors]
        for tensors in (groups.points, groups.beta, groups.omega)
    ]
    sizes = (stop - start,)
    return replace(
        groups,
        points=cut[0],
        beta=cut[1],
        omega=cut[2],
        sizes=sizes,
        spec=encode(sizes, groups.recordings, [True]),
    )


def lone(groups: GroupArgs, i: int) -> GroupArgs:
    """The i-th group alone."""
    sizes, recordings = groups.sizes[i : i + 1], groups.recordings[i : i + 1]
    return replace(
        groups,
        names=groups.names[i : i + 1],
        recordings=recordings,
        points=groups.points[i : i + 1],
        beta=groups.beta[i : i + 1],
        omega=groups.omega[i : i + 1],
        sizes=sizes,
        spec=encode(sizes, recordings, [True]),
    )


def stash_size(chain: Chain, rows: int) -> int:
    """Elements of Z: all layers but a last one without activation keep their pre-activations."""
    *hidden, last = chain.layers
    kept = [layer.weight.shape[0] for layer in hidden] + [last.weight.shape[0]] * bool(last.activation)
    return rows * sum(kept)
