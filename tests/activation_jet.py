"""The activation jet by its definition, in plain torch and float64: what the native operators are compared with.

A jet z has the value z_0, F first derivatives z_k, and M collapsed channels z_m, each a sum of first derivatives and of
second derivatives z_kk with the weights ω_mk. Along the path ε ↦ z_0 + ε z_k + ε² z_kk/2 the second derivative of σ is
σ''(z_0) z_k² + σ'(z_0) z_kk; summed with the weights,

    h_m = d/dε σ(z_0 + ε z_m) + Σ_k ω_mk d²/dε² σ(z_0 + ε z_k)    at ε = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

Elementwise = Callable[[Tensor], Tensor]
BETA, THRESHOLD = 1.7, 3.0  # of softplus; a low threshold, so that both sides of it are met


def softplus(z: Tensor) -> Tensor:
    y = BETA * z
    return torch.where(y > THRESHOLD, z, torch.log1p(torch.exp(torch.minimum(y, y.new_tensor(THRESHOLD)))) / BETA)


def gelu_tanh(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


# By code, as in csrc/core/activation.h. Written with functions that torch can differentiate three times.
DEFINITIONS: dict[str, Elementwise] = {
    "identity": lambda z: z,
    "relu": lambda z: torch.where(z > 0, z, torch.zeros_like(z)),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "erf": torch.erf,
    "softplus": softplus,
    "silu": lambda z: z * torch.sigmoid(z),
    "gelu": lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))),
    "gelu_tanh": gelu_tanh,
}
NAMES = list(DEFINITIONS)


@dataclass(frozen=True)
class Example:
    """Inputs of one call in the dtype under test."""

    z: Tensor  # (1 + F + M, n, w)
    g: Tensor  # (1 + F + M, n, w)
    omega: Tensor  # (1 or n, M, F)
    directions: int


def example(F: int, M: int, n: int, w: int, dtype: torch.dtype, per_point: bool = False, seed: int = 0) -> Example:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    return Example(
        z=1.5 * normal(1 + F + M, n, w),
        g=normal(1 + F + M, n, w),
        omega=normal(n if per_point else 1, M, F),
        directions=F,
    )


def forward(name: str, z: Tensor, omega: Tensor, directions: int) -> Tensor:
    """h (1 + F + M, n, w), differentiable, from the definition above."""
    sigma = DEFINITIONS[name]
    z0, along, collapsed = z[0], z[1 : 1 + directions], z[1 + directions :]

    def first(v: Tensor) -> Tensor:
        return jvp(sigma, (z0,), (v,))[1]

    def second(v: Tensor) -> Tensor:
        return jvp(lambda y: jvp(sigma, (y,), (v,))[1], (z0,), (v,))[1]

    channels = [sigma(z0), *(first(v) for v in along)]
    for m, v in enumerate(collapsed):
        weights = omega[:, m, :, None]  # (1 or n, F, 1)
        channels.append(first(v) + sum(weights[:, k] * second(u) for k, u in enumerate(along)))
    return torch.stack(channels)


def expected(name: str, inputs: Example) -> tuple[Tensor, Tensor]:
    """h and z̄ = ∂⟨g, h⟩/∂z in float64."""
    z, g, omega = (t.double() for t in (inputs.z, inputs.g, inputs.omega))
    z.requires_grad_()
    h = forward(name, z, omega, inputs.directions)
    (zbar,) = torch.autograd.grad((g * h).sum(), z)
    return h.detach(), zbar


def relative_error(actual: Tensor, wanted: Tensor) -> float:
    """Norm-wise: ‖actual − wanted‖ / ‖wanted‖; the absolute error where the wanted is zero or empty."""
    scale = wanted.norm().item() if wanted.numel() else 0.0
    return (actual.double() - wanted).norm().item() / (scale or 1.0)
