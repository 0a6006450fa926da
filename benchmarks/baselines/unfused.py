"""Collapsed jets, pull-back and factors in plain torch operations: the formulas of the native core, without fusion.

Everything that torch allows is used: preallocated workspaces and ``out=``, in-place updates, one GEMM per layer on the
rows of all channels and all groups, the known channels of the first layer (unit vectors), the known
seeds of the last. With h₀ = tanh z₀, σ₁ = 1 − h₀², Q = σ₁ Σ_k ω_k z_k² the formulas need no other derivative of tanh:

    h_k = σ₁z_k                          h_L = σ₁z_L − 2h₀Q
    z̄_L = σ₁g_L                          z̄_k = σ₁g_k − 4ω_k h₀ h_k g_L
    z̄₀  = σ₁(g₀ − 2Qg_L) − 2h₀ Σ_{c≥1} h_c g_c
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Spec:
    """A linear residual: its first-derivative directions, and the weights ω of second derivatives along them (or none).

    Channels: the value, the directions, the collapsed one. The residual is the last channel.
    """

    directions: tuple[int, ...] = ()
    omega: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        return 1 + len(self.directions) + bool(self.omega)


VALUE = Spec()
VELOCITY = Spec((0,))
WAVE = Spec((0, 1), (1.0, -4.0))


def push(z: Tensor, h: Tensor, s1: Tensor, q: Tensor | None, omega: tuple[float, ...]) -> None:
    """From z (C, n, w) the channels h, σ₁ and Q."""
    torch.tanh(z[0], out=h[0])
    torch.mul(h[0], h[0], out=s1).neg_().add_(1.0)
    if len(z) > 1:
        torch.mul(z[1:], s1, out=h[1:])
    if q is not None:
        _weighted(h, z, omega, q)
        h[-1].addcmul_(h[0], q, value=-2.0)


def _weighted(h: Tensor, z: Tensor, omega: tuple[float, ...], out: Tensor) -> None:
    """Σ_k ω_k h_k z_k."""
    torch.mul(h[1], z[1], out=out)
    if omega[0] != 1.0:
        out.mul_(omega[0])
    for k, weight in enumerate(omega[1:], start=2):
        out.addcmul_(h[k], z[k], value=weight)


def pull(
    g: Tensor, h: Tensor, s1: Tensor, q: Tensor | None, omega: tuple[float, ...], t: Tensor, u: Tensor, out: Tensor
) -> None:
    """z̄ into ``out``, which may be g; both (C, n, w), t and u are scratch."""
    channels = len(g)
    if channels > 1:
        torch.mul(h[1], g[1], out=t)
        for c in range(2, channels):
            t.addcmul_(h[c], g[c])
    if q is not None:
        torch.mul(h[0], g[-1], out=u)
        torch.addcmul(g[0], q, g[-1], value=-2.0, out=out[0])
    if out is g:
        g.mul_(s1)
    else:
        torch.mul(g[0] if q is None else out[0], s1, out=out[0])
        torch.mul(g[1:], s1, out=out[1:])
    if channels > 1:
        out[0].addcmul_(h[0], t, value=-2.0)
    for k, weight in enumerate(omega, start=1):
        out[k].addcmul_(u, h[k], value=-4.0 * weight)


def pull_seed(
    seed: Tensor, g: Tensor, h: Tensor, s1: Tensor, q: Tensor | None, omega: tuple[float, ...], u: Tensor
) -> None:
    """z̄ into g where the cotangent is ``seed``, (w,), on the last channel and zero on the others."""
    torch.mul(s1, seed, out=g[-1])
    if len(g) == 1:
        return
    torch.mul(h[0], seed, out=u)
    torch.mul(u, h[-1], out=g[0]).mul_(-2.0)
    if q is not None:
        g[0].addcmul_(g[-1], q, value=-2.0)
        for k, weight in enumerate(omega, start=1):
            torch.mul(u, h[k], out=g[k]).mul_(-4.0 * weight)


class Unfused:
    """Factors of a tanh network 2-w-…-w-1 on groups of points, with workspaces that are reused from call to call.

    Args:
        net: ``nn.Sequential`` of Linear and Tanh, equal hidden widths, one output.
        groups: rows and residual of each group.
        keep: keep the cotangents of every layer (needed by ``gram`` and ``vjp``) instead of two that take turns.
    """

    def __init__(self, net: nn.Sequential, groups: dict[str, tuple[int, Spec]], keep: bool = True) -> None:
        linear = [layer for layer in net if isinstance(layer, nn.Linear)]
        self.weights = [layer.weight.detach() for layer in linear]
        self.biases = [layer.bias.detach() for layer in linear]
        self.groups, self.keep = groups, keep
        self.hidden, self.width = len(linear) - 1, self.weights[0].shape[0]
        self.bounds = self._bounds([spec.channels * n for n, spec in groups.values()])
        self.row_bounds = self._bounds([n for n, _ in groups.values()])
        new = self.weights[0].new_empty
        stack, rows, width = self.bounds[-1], self.row_bounds[-1], self.width
        self.h = [new(stack, width) for _ in range(self.hidden)]
        self.s1 = [new(rows, width) for _ in range(self.hidden)]
        self.q = [new(rows, width) for _ in range(self.hidden)]
        self.z, self.t, self.u = new(stack, width), new(rows, width), new(rows, width)
        self.d = [new(stack, width) for _ in range(self.hidden if keep else 2)]
        self.rows = new(rows)
        self.points: list[Tensor] = []
        self._views()

    @staticmethod
    def _bounds(sizes: list[int]) -> list[int]:
        return [sum(sizes[:i]) for i in range(len(sizes) + 1)]

    def _views(self) -> None:
        """Per group and layer the views that the elementwise steps work on, made once."""

        def stacked(buffer: Tensor) -> list[Tensor]:
            return [
                buffer[a:b].view(spec.channels, n, self.width)
                for (n, spec), a, b in zip(self.groups.values(), self.bounds[:-1], self.bounds[1:], strict=True)
            ]

        def flat(buffer: Tensor) -> list[Tensor]:
            return [buffer[a:b] for a, b in zip(self.row_bounds[:-1], self.row_bounds[1:], strict=True)]

        self.specs = [spec for _, spec in self.groups.values()]
        self.vz, self.vt, self.vu, self.vrows = stacked(self.z), flat(self.t), flat(self.u), flat(self.rows)
        self.vh, self.vd = [stacked(x) for x in self.h], [stacked(x) for x in self.d]
        self.vs1 = [flat(x) for x in self.s1]
        self.vq = [[x if spec.omega else None for x, spec in zip(flat(q), self.specs, strict=True)] for q in self.q]

    def forward(self, points: dict[str, Tensor]) -> Tensor:
        """Run the channels through the network; returns the rows, (N,), which the next call overwrites."""
        self.points = [points[name] for name in self.groups]
        for g in range(len(self.specs)):
            self._first_layer(g)
        for layer in range(1, self.hidden):
            torch.mm(self.h[layer - 1], self.weights[layer].t(), out=self.z)
            for g, spec in enumerate(self.specs):
                self.vz[g][0].add_(self.biases[layer])
                push(self.vz[g], self.vh[layer][g], self.vs1[layer][g], self.vq[layer][g], spec.omega)
        for g, spec in enumerate(self.specs):
            torch.mv(self.vh[-1][g][-1], self.weights[-1][0], out=self.vrows[g])
            if spec.channels == 1:
                self.vrows[g].add_(self.biases[-1])
        return self.rows

    def _first_layer(self, g: int) -> None:
        """The derivative channels of the input are unit vectors: z_k is a column of the weight, z_L is zero."""
        spec, h, s1, q = self.specs[g], self.vh[0][g], self.vs1[0][g], self.vq[0][g]
        torch.addmm(self.biases[0], self.points[g], self.weights[0].t(), out=h[0])
        h[0].tanh_()
        torch.mul(h[0], h[0], out=s1).neg_().add_(1.0)
        for c, k in enumerate(spec.directions, start=1):
            torch.mul(s1, self.weights[0][:, k], out=h[c])
        if q is not None:
            first, *others = spec.directions
            squares = self.weights[0][:, first].square().mul_(spec.omega[0])
            for k, weight in zip(others, spec.omega[1:], strict=True):
                squares.addcmul_(self.weights[0][:, k], self.weights[0][:, k], value=weight)
            torch.mul(s1, squares, out=q)
            torch.mul(h[0], q, out=h[-1]).mul_(-2.0)

    def backward(self, visit=None) -> None:
        """Cotangents of every layer, last to first; ``visit(layer)`` is called where those of layer layer are ready."""
        for layer in range(self.hidden - 1, -1, -1):
            slot = layer if self.keep else layer % 2
            if layer < self.hidden - 1:
                above = layer + 1 if self.keep else (layer + 1) % 2
                torch.mm(self.d[above], self.weights[layer + 1], out=self.d[slot])
            for g, spec in enumerate(self.specs):
                d, h, s1, q = self.vd[slot][g], self.vh[layer][g], self.vs1[layer][g], self.vq[layer][g]
                if layer == self.hidden - 1:
                    pull_seed(self.weights[-1][0], d, h, s1, q, spec.omega, self.vu[g])
                else:
                    pull(d, h, s1, q, spec.omega, self.vt[g], self.vu[g], out=d)
            if visit is not None:
                visit(layer)

    def sweep(self, points: dict[str, Tensor]) -> Tensor:
        """Forward and backward: all factors. Returns the rows."""
        rows = self.forward(points)
        self.backward()
        return rows

    def cotangents(self, layer: int, g: int) -> Tensor:
        """D of hidden layer layer for group g, (C, n, w)."""
        return self.vd[layer if self.keep else layer % 2][g]

    def unit_inputs(self, layer: int, g: int) -> Tensor:
        """A of hidden layer layer > 0 for group g, (C, n, w)."""
        return self.vh[layer - 1][g]
