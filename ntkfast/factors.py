"""Factors: one packed forward and backward sweep for all groups, a snapshot at θ from which everything else follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from . import _ops
from .contraction import contract
from .residual import Residual, value
from .rows import attach, attach_forward
from .snapshot import Snapshot, Workspace, as_workspace, group_jacobian, group_stacks, layer_stacks, sweep
from .streaming import by_block, layer_sums, output_channels
from .sweep import as_groups, chain_args, group_args


@dataclass(frozen=True)
class Block:
    """The factors of one layer.

    One group: A is (C, n, n_in); D is (C, n, n_out), with k > 1 rows a point a tuple of k such tensors, one for each
    component. Several groups: the ragged stacks (Σ C n, n_in) and (Σ C n, n_out), in the order of csrc/core/params.h.
    D belongs to the effective weights: with ``parameterization="ntk"`` the Jacobian has their scales as factors beside.
    """

    A: Tensor
    D: Tensor | tuple[Tensor, ...]


class Factors:
    """Residual rows and the factors (A, D) of their Jacobian; made by `ntk.factors`.

    J_i[W_l] = Σ_c D_i⁽ᶜ⁾ ⊗ A_i⁽ᶜ⁾,  J_i[b_l] = D_i⁽⁰⁾

    Example:
        >>> import torch, ntkfast as ntk
        >>> net, x = ntk.MLP([2, 8, 1]), torch.rand(5, 2)
        >>> f = ntk.factors(net, {"a": (x, ntk.value), "b": (x[:2], ntk.value)})
        >>> f.shape, f["b"].gram().shape, list(f.trace())
        ((7, 33), torch.Size([2, 2]), ['a', 'b'])
    """

    def __init__(self, snapshot: Snapshot, names: tuple[str, ...], lone: bool) -> None:
        self._snapshot = snapshot
        self._lone = lone
        self._spec = snapshot.groups.spec if names == snapshot.groups.names else snapshot.groups.select(names)
        self.names = names
        whole = snapshot.groups.slices
        self._rows = [whole[name] for name in names]
        self.slices: dict[str, slice] = {}
        start = 0
        for name, rows in zip(names, self._rows, strict=True):
            self.slices[name] = slice(start, start + rows.stop - rows.start)
            start = self.slices[name].stop
        self.shape = (start, sum(p.numel() for p in self.parameters().values()))

    def __repr__(self) -> str:
        return f"Factors(rows={self.shape[0]}, parameters={self.shape[1]}, groups={self.names})"

    def __getitem__(self, name: str) -> Factors:
        """One group: a view with the same methods."""
        if name not in self.names:
            raise KeyError(f"expected one of the groups {self.names}, got {name!r}")
        return Factors(self._snapshot, (name,), True)

    def parameters(self) -> dict[str, Tensor]:
        """The parameters that the Jacobian is taken by, in the order of ``named_parameters()``."""
        return self._snapshot.chain.parameters(self._snapshot.args.selected)

    def _take(self, x: Tensor) -> Tensor:
        """The selected rows of something over all rows (last axis)."""
        if len(self._rows) == 1:
            return x[..., self._rows[0]]
        if self.shape[0] == x.shape[-1]:
            return x
        return torch.cat([x[..., rows] for rows in self._rows], -1)

    @property
    def rows(self) -> Tensor:
        """The residual rows r(θ), (N,); differentiable in θ once (the backward is `vjp`, no second sweep)."""
        values = self._take(self._snapshot.values)
        if not torch.is_grad_enabled() or not self.parameters():
            return values.clone()
        return attach(values, self.parameters(), self.vjp)

    def diag(self, per_block: bool = False) -> Any:
        """The diagonal of K: (N,), with several groups a dict of such by name; `per_block` names the layers inside."""
        return self._reduced(lambda layers: layers, per_block)

    def trace(self, per_block: bool = False) -> Any:
        """The trace of K, 0-d; with several groups a dict of such by name; `per_block` names the layers inside."""
        return self._reduced(layer_sums, per_block)

    def _reduced(self, reduce: Any, per_block: bool) -> Any:
        snapshot = self._snapshot.check()
        parts = {
            name: by_block(snapshot.chain, snapshot.args, reduce(snapshot.layer_diag()[:, rows]), per_block)
            for name, rows in zip(self.names, self._rows, strict=True)
        }
        return parts[self.names[0]] if self._lone else parts

    def gram(self, other: Factors | None = None) -> Tensor:
        """K = J J'ᵀ, (N, M), against other factors of the same network or against these: then exactly symmetric.

        Raises:
            TypeError: ``other`` is no Factors.
            ValueError: they are of another network, of other parameters, dtype or device.
        """
        g = self if other is None else other
        if not isinstance(g, Factors):
            raise TypeError(f"gram: expected factors, got {type(g).__name__}")
        a, b = self._snapshot.check(), g._snapshot.check()
        if (a.chain.dtype, a.chain.device) != (b.chain.dtype, b.chain.device):
            raise ValueError(
                f"gram: expected factors of one dtype and device, got {a.chain.dtype} on {a.chain.device} "
                f"and {b.chain.dtype} on {b.chain.device}"
            )
        if a.chain.widths != b.chain.widths or list(self.parameters()) != list(g.parameters()):
            raise ValueError(
                "gram: expected factors of one network and the same parameters, "
                f"got {self.shape[1]} and {g.shape[1]} of them"
            )
        if a.args.jacobian_scales != b.args.jacobian_scales:
            raise ValueError("gram: expected factors of one parameterization, got networks whose layers scale θ apart")
        out = a.values.new_empty(self.shape[0], g.shape[0])
        contract(a, b, out, specs=(self._spec, g._spec))
        return out

    def vjp(self, x: Tensor, out: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Jᵀx by parameter name.

        (Jᵀx)[W] = Σ_c (x ∘ D⁽ᶜ⁾)ᵀ A⁽ᶜ⁾,  (Jᵀx)[b] = Σ_i x_i D_i⁽⁰⁾

        Args:
            x: (N,).
            out: contiguous tensors to write into, by parameter name; otherwise they are made.

        Returns:
            A dict keyed and shaped like ``named_parameters()``, without frozen ones.

        Raises:
            ValueError: x of another shape, dtype or device, or an ``out`` that does not fit.
            TypeError: x is no tensor, or ``out`` no dict.

        Cost:
            2 N C Σ n_in n_out flops.
        """
        snapshot = self._snapshot.check()
        x = self._check_rows(x)
        parameters = self.parameters()
        grads = gradients_for("vjp", parameters, out)
        nothing = snapshot.args.parameters[0].new_empty(0)
        targets = snapshot.chain.in_order(grads, snapshot.args.selected, nothing)
        _ops.vjp(snapshot.args, self._spec, snapshot.A, snapshot.D, x, targets)
        if out is not None:
            increment_version([grads[name] for name in parameters])
        return {name: grads[name] for name in parameters}

    def jvp(self, v: Mapping[str, Tensor]) -> Tensor:
        """J v, (N,), for v by parameter name; a name left out counts as zero.

        (J v)_i = Σ_c ⟨D_i⁽ᶜ⁾, V A_i⁽ᶜ⁾⟩ + ⟨D_i⁽⁰⁾, v_b⟩

        Raises:
            ValueError: an unknown name, or a shape, dtype or device that differs from the parameter's.
            TypeError: v is no dict of tensors.
        """
        snapshot = self._snapshot.check()
        parameters = self.parameters()
        for name, tangent in check_mapping("jvp", v).items():
            if name not in parameters:
                raise ValueError(f"jvp: expected names out of {tuple(parameters)}, got {name!r}")
            p = parameters[name]
            if not isinstance(tangent, Tensor):
                raise TypeError(f"jvp: expected a tensor for {name!r}, got {type(tangent).__name__}")
            if tangent.shape != p.shape or tangent.dtype != p.dtype or tangent.device != p.device:
                raise ValueError(
                    f"jvp: expected {tuple(p.shape)} in {p.dtype} on {p.device} for {name!r}, "
                    f"got {tuple(tangent.shape)} in {tangent.dtype} on {tangent.device}"
                )
        nothing = snapshot.args.parameters[0].new_empty(0)
        given = {name: tangent.detach().contiguous() for name, tangent in v.items()}
        tangents = snapshot.chain.in_order(given, snapshot.args.selected, nothing)
        out = torch.empty(self.shape[0], dtype=torch.float64, device=snapshot.A.device)
        _ops.jvp(snapshot.args, self._spec, snapshot.A, snapshot.D, tangents, out)
        return out.to(snapshot.chain.dtype)

    @property
    def blocks(self) -> dict[str, Block]:
        """The factors of each layer, by module name."""
        return {
            layer.name: Block(*self._stacks(i))
            for i, layer in enumerate(self._snapshot.chain.layers)
            if any(self._snapshot.args.active(i))
        }

    def _stacks(self, i: int) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        A, D = layer_stacks(self._snapshot.check(), i)
        if not self._lone:
            return A, D
        inputs, cotangents = group_stacks(self._snapshot, i, self.names[0])
        return inputs, cotangents[0] if len(cotangents) == 1 else cotangents

    def jacobian(self) -> Tensor:
        """J, (N, P), columns in the order of ``named_parameters()``: for tests and small networks.

        Cost:
            N · P numbers of memory: exactly what everything else here avoids.
        """
        snapshot = self._snapshot.check()
        rows = [group_jacobian(snapshot, name) for name in self.names]
        return torch.cat(rows, 0) if rows else snapshot.values.new_empty(self.shape)

    def _check_rows(self, x: Tensor) -> Tensor:
        like = self._snapshot.values
        if not isinstance(x, Tensor):
            raise TypeError(f"vjp: expected a tensor of shape ({self.shape[0]},), got {type(x).__name__}")
        if x.shape != (self.shape[0],) or x.dtype != like.dtype or x.device != like.device:
            raise ValueError(
                f"vjp: expected one number a row, ({self.shape[0]},) in {like.dtype} on {like.device}, "
                f"got {tuple(x.shape)} in {x.dtype} on {x.device}"
            )
        return x.detach().contiguous()


def factors(
    net: nn.Module,
    points: Any,
    residual: Residual = value,
    *,
    wrt: str | Sequence[str] | None = None,
    workspace: Workspace | None = None,
) -> Factors:
    """One forward and one backward sweep over all groups: the rows r(θ) and the factors of their Jacobian.

    Args:
        net: a native network (`ntk.MLP` or a plain ``nn.Sequential``), float32 or float64.
        points: (n, d) in raw coordinates, of the network's dtype and device; or a dict of groups (points, residual).
            Constants, also where they require grad.
        residual: the residual; not used with a dict of groups.
        wrt: fnmatch patterns on parameter names; None: all that require grad.
        workspace: buffers to reuse; the result is valid until the next call with the same ones.

    Returns:
        A snapshot: later changes of θ do not reach it.

    Raises:
        ValueError: points, residual or network that do not fit.
        TypeError: arguments of a wrong type.

    Cost:
        4 N C Σ n_in n_out flops; N C Σ (n_in + n_out) numbers, with 2 n_out where a residual is not linear.

    Reference:
        Novak, Sohl-Dickstein, Schoenholz, *Fast finite width neural tangent kernel*, 2022, section 3, for values;
        here with the derivative channels of Taylor mode: J_i[W] = Σ_c D_i⁽ᶜ⁾ ⊗ A_i⁽ᶜ⁾.

    Example:
        >>> import torch, ntkfast as ntk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> f = ntk.factors(net, torch.tensor([[3.0, 4.0]]))
        >>> f.vjp(torch.ones(1))["0.weight"]
        tensor([[3., 4.]])
    """
    groups, several = as_groups(points, residual)
    chain, args = chain_args(net, wrt)
    snapshot = sweep(chain, args, group_args(chain, groups), as_workspace(workspace))
    return Factors(snapshot, tuple(groups), not several)


def rows_of(net: nn.Module, points: Any, residual: Residual) -> Tensor:
    """The rows at the points, (n·k,), by a forward sweep alone; connected to θ by autograd, once.

    The backward makes the factors.

    Raises:
        TypeError: a dict of groups: their rows are those of ``ntk.factors``.
    """
    if isinstance(points, Mapping):
        raise TypeError(f"{residual!r}: expected points, got a dict of groups; ntk.factors takes those")
    groups, _ = as_groups(points, residual)
    chain, args = chain_args(net)
    prepared = group_args(chain, groups)
    with torch.no_grad():
        recording = prepared.recordings[0]
        values = recording.rows(output_channels(chain, args, prepared)[0]).reshape(-1)
    parameters = {n: p for n, p in chain.parameters().items() if p.requires_grad}
    if not torch.is_grad_enabled() or not parameters:
        return values

    def pull(x: Tensor) -> dict[str, Tensor]:
        return Factors(sweep(chain, args, prepared, Workspace()), ("",), True).vjp(x)

    # The sweep of the backward reads these as they are then.
    frozen = [p for p in chain.parameters().values() if not p.requires_grad]
    return attach_forward(values, parameters, [*recording.given(), *frozen], pull)


def check_mapping(where: str, given: object, what: str = "a dict") -> Mapping[str, Tensor]:
    """Return a dict of tensors by parameter name, or say what came instead."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}: expected {what} of tensors by parameter name, got {type(given).__name__}")
    return given


def gradients_for(where: str, parameters: Mapping[str, Tensor], out: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Tensors to write a gradient into, by parameter name: new ones, or the caller's if they fit.

    Raises:
        ValueError: it names the first one that does not fit.
        TypeError: ``out`` is no dict.
    """
    if out is None:
        return {n: torch.empty_like(p, memory_format=torch.contiguous_format) for n, p in parameters.items()}
    check_mapping(where, out, "out as a dict")
    for name, p in parameters.items():
        given = out.get(name)
        if not isinstance(given, Tensor):
            raise ValueError(f"{where}: expected a tensor for {name!r} in out, got {type(given).__name__}")
        if given.requires_grad:
            raise ValueError(f"{where}: expected an out that requires no grad for {name!r}, got one that does")
        if given.shape != p.shape or given.dtype != p.dtype or given.device != p.device or not given.is_contiguous():
            raise ValueError(
                f"{where}: expected out contiguous, {tuple(p.shape)} in {p.dtype} on {p.device} for {name!r}, "
                f"got {tuple(given.shape)} in {given.dtype} on {given.device}, strides {given.stride()}"
            )
    spans = sorted((out[name].data_ptr(), out[name].data_ptr() + out[name].nbytes) for name in parameters)
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        raise ValueError(f"{where}: expected memory of its own for every parameter in out, got tensors that share some")
    return {name: out[name] for name in parameters}
