"""Trace, diagonal, gram and Jᵀx from the factors of ``unfused.Unfused``, in plain torch operations.

    K_ii = Σ_cc' ⟨D_c, D_c'⟩⟨A_c, A_c'⟩ + ‖D₀‖²          K = Σ_cc' (D_c D_c'ᵀ) ∘ (A_c A_c'ᵀ) + D₀D₀ᵀ

The first layer's inputs are x and unit vectors, the last layer's cotangents a one: both contract to a thin Jacobian.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .unfused import Spec, Unfused


def _channel_grams(x: Tensor) -> Tensor:
    """⟨x_c, x_c'⟩ per row: (C, n, w) to (n, C, C)."""
    return torch.bmm(x.transpose(0, 1), x.permute(1, 2, 0))


def _first_jacobian(d: Tensor, x: Tensor, spec: Spec) -> list[Tensor]:
    """Per input column k the Jacobian D₀x_k + D_k of the first layer's weights, (n, w)."""
    columns = [d[0] * x[:, k : k + 1] for k in range(x.shape[1])]
    for c, k in enumerate(spec.directions, start=1):
        columns[k] += d[c]
    return columns


def _diag_of_layer(sweep: Unfused, layer: int, g: int) -> Tensor:
    d, spec = sweep.cotangents(layer, g), sweep.specs[g]
    bias = torch.linalg.vecdot(d[0], d[0])
    if layer == 0:
        for column in _first_jacobian(d, sweep.points[g], spec):
            bias += torch.linalg.vecdot(column, column)
        return bias
    a = sweep.unit_inputs(layer, g)
    if spec.channels == 1:
        return bias.addcmul_(bias, torch.linalg.vecdot(a[0], a[0]))
    return bias.add_((_channel_grams(d) * _channel_grams(a)).sum((1, 2)))


def _last_diag(sweep: Unfused, g: int) -> Tensor:
    a = sweep.vh[-1][g][-1]
    total = torch.linalg.vecdot(a, a)
    return total.add_(1.0) if sweep.specs[g].channels == 1 else total


def diag(sweep: Unfused, points: dict[str, Tensor]) -> dict[str, Tensor]:
    """K_ii of every group, after a sweep made here; cotangents are contracted while they are in cache."""
    sweep.forward(points)
    totals = [_last_diag(sweep, g) for g in range(len(sweep.specs))]

    def visit(layer: int) -> None:
        for g, total in enumerate(totals):
            total.add_(_diag_of_layer(sweep, layer, g))

    sweep.backward(visit)
    return dict(zip(sweep.groups, totals, strict=True))


def diag_of(sweep: Unfused) -> dict[str, Tensor]:
    """K_ii of every group from factors that a sweep has kept."""
    totals = {}
    for g, name in enumerate(sweep.groups):
        totals[name] = _last_diag(sweep, g)
        for layer in range(sweep.hidden):
            totals[name] += _diag_of_layer(sweep, layer, g)
    return totals


def trace(sweep: Unfused, points: dict[str, Tensor]) -> Tensor:
    """tr K of a lone group, over the points in pieces of as many rows as ``sweep`` was made for."""
    ((name, (n, _)),) = sweep.groups.items()
    x = points[name]
    if len(x) % n:
        raise ValueError(f"expected a multiple of {n} points, got {len(x)}")
    return torch.stack([diag(sweep, {name: piece})[name].sum(dtype=torch.float64) for piece in x.split(n)]).sum()


def gram(sweep: Unfused, points: dict[str, Tensor]) -> Tensor:
    """K of a lone group, (n, n), structured in the square layers: only channel pairs c ≤ c', no array above n × n."""
    sweep.sweep(points)
    spec, x = sweep.specs[0], sweep.points[0]
    last, d0 = sweep.vh[-1][0][-1], sweep.cotangents(0, 0)
    total = last @ last.t()
    if spec.channels == 1:
        total += 1.0
    for column in (d0[0], *_first_jacobian(d0, x, spec)):
        total.addmm_(column, column.t())
    half, left, right = torch.zeros_like(total), torch.empty_like(total), torch.empty_like(total)
    for layer in range(1, sweep.hidden):
        a, d = sweep.unit_inputs(layer, 0), sweep.cotangents(layer, 0)
        total.addmm_(d[0], d[0].t())
        for c in range(spec.channels):
            for e in range(c, spec.channels):
                torch.mm(a[c], a[e].t(), out=left)
                torch.mm(d[c], d[e].t(), out=right)
                (total if c == e else half).addcmul_(left, right)
    return total.add_(half).add_(half.t())


def gram_stacked(sweep: Unfused, points: dict[str, Tensor]) -> Tensor:
    """K of a lone group by two (Cn × Cn) products per layer: fewer and larger products, more memory."""
    sweep.sweep(points)
    spec, x = sweep.specs[0], sweep.points[0]
    n, channels = len(x), spec.channels
    last, d0 = sweep.vh[-1][0][-1], sweep.cotangents(0, 0)
    total = last @ last.t()
    if channels == 1:
        total += 1.0
    for column in (d0[0], *_first_jacobian(d0, x, spec)):
        total.addmm_(column, column.t())
    for layer in range(1, sweep.hidden):
        a, d = sweep.h[layer - 1], sweep.d[layer]
        total.addmm_(d[:n], d[:n].t())
        total += torch.mm(a, a.t()).mul_(torch.mm(d, d.t())).view(channels, n, channels, n).sum((0, 2))
    return total


def vjp(sweep: Unfused, x: Tensor) -> list[Tensor]:
    """Jᵀx from kept factors, as weight and bias of each layer in turn; x has one entry per row."""
    pieces = [x[a:b] for a, b in zip(sweep.row_bounds[:-1], sweep.row_bounds[1:], strict=True)]
    gradients: list[Tensor] = []
    for layer in range(sweep.hidden):
        for g, piece in enumerate(pieces):
            torch.mul(sweep.cotangents(layer, g), piece[:, None], out=sweep.vz[g])
        bias = sum(z[0].sum(0) for z in sweep.vz)
        gradients += [_first_weight(sweep) if layer == 0 else torch.mm(sweep.z.t(), sweep.h[layer - 1]), bias]
    last = sum(torch.mv(sweep.vh[-1][g][-1].t(), piece) for g, piece in enumerate(pieces))
    value = sum((p.sum() for p, s in zip(pieces, sweep.specs, strict=True) if s.channels == 1), x.new_zeros(()))
    return [*gradients, last[None], value.reshape(1)]


def _first_weight(sweep: Unfused) -> Tensor:
    """Σ_c (x∘D_c)ᵀA_c of the first layer; x∘D is in ``sweep.z``."""
    total = torch.zeros_like(sweep.weights[0])
    for g, spec in enumerate(sweep.specs):
        total.addmm_(sweep.vz[g][0].t(), sweep.points[g])
        for c, k in enumerate(spec.directions, start=1):
            total[:, k] += sweep.vz[g][c].sum(0)
    return total


def jvp(sweep: Unfused, v: list[Tensor]) -> Tensor:
    """J v from kept factors, (N,); v holds weight and bias of each layer in turn. Overwrites ``sweep.z``."""
    rows = [last @ v[-2][0] for last in (h[-1] for h in sweep.vh[-1])]
    for g, spec in enumerate(sweep.specs):
        if spec.channels == 1:
            rows[g] += v[-1]
        d = sweep.cotangents(0, g)
        rows[g] += torch.linalg.vecdot(d[0], torch.addmm(v[1], sweep.points[g], v[0].t()))
        for c, k in enumerate(spec.directions, start=1):
            rows[g] += torch.mv(d[c], v[0][:, k])
    for layer in range(1, sweep.hidden):
        torch.mm(sweep.h[layer - 1], v[2 * layer].t(), out=sweep.z)
        for g in range(len(rows)):
            sweep.vz[g][0].add_(v[2 * layer + 1])
            rows[g] += sweep.vz[g].mul_(sweep.cotangents(layer, g)).sum((0, 2))
    return torch.cat(rows)


def step(sweep: Unfused, points: dict[str, Tensor], weights: dict[str, float]) -> tuple[Tensor, list[Tensor]]:
    """Loss Σ_g λ_g mean(r²) and its gradient by one packed sweep."""
    rows = sweep.sweep(points)
    scale = torch.cat([rows.new_full((n,), weights[g] / n) for g, (n, _) in sweep.groups.items()])
    scaled = rows * scale
    return torch.dot(scaled, rows), vjp(sweep, scaled.mul_(2.0))
