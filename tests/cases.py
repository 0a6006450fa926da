"""The table of problems on which every kernel is compared with `ntkfast.reference`: a network, a residual, points.

The expected numbers come from the reference in float64, with the weights and points rounded to the type under test.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import reference

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


# ------------------------------------------------------------------------------------------------------------ residuals


@ntk.residual("t", "x")
def u_t(u):
    return u.d(t=1)


@ntk.residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


@ntk.residual("t", "x")
def heat(u, at, kappa):
    return u.d(t=1) - kappa * u.d(x=2) - torch.sin(at.x)


@ntk.residual("t", "x")
def burgers(u):
    return u.d(t=1) + u * u.d(x=1) - 0.1 * u.d(x=2)


@ntk.residual("x", "y")
def eikonal(u):
    return u.d(x=1) ** 2 + u.d(y=1) ** 2 - 1.0


@ntk.residual("t", "x")
def allen_cahn(u):
    return u.d(t=1) - 1e-2 * u.d(x=2) + 5.0 * u**3 - 5.0 * u


@ntk.residual("t", "x")
def sine_gordon(u):
    return u.d(t=2) - u.d(x=2) + torch.sin(u)


@ntk.residual("t", "x")
def two_components(u, at):
    return {"flux": u.d(t=1) + at.t * u, "curvature": u.d(x=2) + 0.5 * u * u}


@ntk.residual("t", "x")
def variable_coefficient(u, at):
    return u.d(t=1) - (1.0 + at.x**2) * u.d(x=2) + torch.cos(at.t) * u


@ntk.residual("t", "x")
def products(u):
    return u.d(t=2) * u.d(x=2) + u.d(x=1) ** 3 - u.value


@ntk.residual("t", "x")
def factored(u, at):
    return torch.exp(u) * (u.d(t=1) - 0.3 * u.d(x=2)) / (2.0 + at.x)


@ntk.residual("t", "x")
def itself(u):
    return u


@ntk.residual("x")
def u_xx(u):
    return u.d(x=2)


@ntk.residual("x")
def slope_and_curvature(u):
    return {"slope": u.d(x=1), "curvature": u.d(x=2) - u}


@ntk.residual("t", "x", "y")
def wave_in_the_plane(u):
    return u.d(t=2) - 4.0 * u.laplacian("x", "y")


@ntk.residual("t", "x", "y")
def gradient_in_the_plane(u):
    return {"u_t": u.d(t=1), "energy": u.d(t=2) + u.d(x=1) ** 2 + u.d(y=1) ** 2}


@ntk.residual("a", "b", "c", "d", "e")
def poisson5(u):
    return u.laplacian("a", "b", "c", "d", "e") + u


# ------------------------------------------------------------------------------------------------------------- networks


def mlp(activation: Callable[[], nn.Module], sizes=(2, 16, 16, 1), bias: bool = True) -> nn.Module:
    """A standardised multilayer perceptron."""
    d = sizes[0]
    layers: list[nn.Module] = [ntk.Standardize([0.5] * d, [0.29] * d)]
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def nested() -> nn.Module:
    inner = nn.Sequential(nn.Sequential(nn.Linear(11, 13), nn.SiLU()), nn.Linear(13, 1))
    return nn.Sequential(nn.Sequential(nn.Linear(2, 11), nn.Tanh()), inner)


def leading_activation() -> nn.Module:
    return nn.Sequential(nn.Tanh(), nn.Linear(2, 9), ntk.Sin(), nn.Tanh(), nn.Linear(9, 1), nn.Sigmoid())


def identity_chain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 8), nn.Identity(), nn.Linear(8, 5, bias=False), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 1)
    )


def ntk_parameterization() -> nn.Module:
    return ntk.MLP([2, 16, 16, 1], activation="erf", parameterization="ntk", w_std=1.5, b_std=0.1)


@dataclass(frozen=True)
class Problem:
    """A case in one floating type: the network, its points and residual, and the exact float64 Jacobian."""

    net: nn.Module
    points: Tensor  # (n, d)
    residual: Any
    jacobian: Tensor = field(repr=False)  # (n·k, P), float64

    @property
    def dtype(self) -> torch.dtype:
        return self.points.dtype

    @property
    def blocks(self) -> dict[str, Tensor]:
        """The columns of the Jacobian by module name, (n·k, p) each."""
        columns: dict[str, list[Tensor]] = {}
        parameters = dict(self.net.named_parameters())
        parts = self.jacobian.split([p.numel() for p in parameters.values()], dim=1)
        for name, part in zip(parameters, parts, strict=True):
            columns.setdefault(name.rpartition(".")[0], []).append(part)
        return {name: torch.cat(parts, dim=1) for name, parts in columns.items()}

    def close(self, actual: Tensor, expected: Tensor) -> bool:
        return close(actual, expected, self.dtype)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    make: Callable[[], nn.Module]
    residual: Any
    columns: int = 2
    n: int = 19

    def __str__(self) -> str:
        return self.name

    def net(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The network with every weight and bias drawn anew from a fixed seed."""
        return randomized(self.make()).to(dtype)

    def points(self, dtype: torch.dtype = torch.float64, n: int | None = None, seed: int = 1) -> Tensor:
        """Uniform points in the unit cube."""
        return uniform(self.n if n is None else n, self.columns, seed).to(dtype)

    def problem(self, dtype: torch.dtype = torch.float64) -> Problem:
        return Problem(self.net(dtype), self.points(dtype), self.residual, expected_jacobian(self, dtype))


def uniform(n: int, d: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomized(net: nn.Module, seed: int = 0) -> nn.Module:
    """Draws W ~ N(0, 1.2²/n_in) and b ~ N(0, ½²), so that no bias hides by being zero."""
    generator = torch.Generator().manual_seed(seed)
    scaled = getattr(net, "parameterization", "standard") == "ntk"
    with torch.no_grad():
        for p in net.parameters():
            std = 1.0 if scaled else 1.2 / p.shape[1] ** 0.5 if p.ndim == 2 else 0.5
            p.copy_(std * torch.randn(p.shape, dtype=torch.float64, generator=generator))
    return net.double()


@lru_cache(maxsize=None)
def expected_jacobian(case: Case, dtype: torch.dtype) -> Tensor:
    with one_thread():
        return reference.jacobian(double(case.net(dtype)), case.points(dtype).double(), case.residual)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: its operations on these small networks are too short to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def double(net: nn.Module) -> nn.Module:
    """A float64 copy with the same numbers."""
    return copy.deepcopy(net).double()


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Norm-wise: ‖actual − expected‖ ≤ tolerance · ‖expected‖; equal shapes, and the type that was asked for."""
    assert actual.dtype == dtype, f"expected {dtype}, got {actual.dtype}"
    assert actual.shape == expected.shape, f"expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    error = torch.linalg.vector_norm(actual.double() - expected.double())
    scale = torch.linalg.vector_norm(expected.double())
    assert error <= TOLERANCE[dtype] * scale, f"relative error {float(error / scale):.2e} of norm {float(scale):.2e}"
    return True


_TANH = lambda: mlp(nn.Tanh)  # noqa: E731

CASES = [
    *[
        Case(f"{name}-wave", make, wave)
        for name, make in {
            "tanh": _TANH,
            "sin": lambda: mlp(ntk.Sin),
            "erf": lambda: mlp(ntk.Erf),
            "sigmoid": lambda: mlp(nn.Sigmoid),
            "gelu": lambda: mlp(nn.GELU),
            "gelu_tanh": lambda: mlp(lambda: nn.GELU(approximate="tanh")),
            "silu": lambda: mlp(nn.SiLU),
            "softplus": lambda: mlp(nn.Softplus),
            "softplus_beta_threshold": lambda: mlp(lambda: nn.Softplus(beta=2.5, threshold=1.5)),
            "no_bias": lambda: mlp(nn.Tanh, bias=False),
            "nested": nested,
            "leading_activation": leading_activation,
            "identity_chain": identity_chain,
            "ntk_parameterization": ntk_parameterization,
            "deep_narrow": lambda: mlp(nn.Tanh, (2, 5, 3, 6, 5, 4, 1)),
            "odd_widths": lambda: mlp(nn.Tanh, (2, 33, 17, 1)),
            "wide": lambda: mlp(nn.Tanh, (2, 70, 131, 1)),
            "wider": lambda: mlp(nn.Tanh, (2, 150, 120, 1)),
            "one_hidden": lambda: mlp(nn.Tanh, (2, 24, 1)),
        }.items()
    ],
    *[
        Case(f"tanh-{name}", _TANH, residual)
        for name, residual in {
            "value": ntk.value,
            "u_t": u_t,
            "heat": heat.bind(kappa=0.3),
            "heat_tensor": heat.bind(kappa=torch.tensor(0.25)),
            "burgers": burgers,
            "eikonal": eikonal,
            "allen_cahn": allen_cahn,
            "sine_gordon": sine_gordon,
            "two_components": two_components,
            "variable_coefficient": variable_coefficient,
            "products": products,
            "factored": factored,
            "itself": itself,
        }.items()
    ],
    Case("silu-burgers", lambda: mlp(nn.SiLU), burgers),
    Case("sin-two_components", lambda: mlp(ntk.Sin), two_components),
    Case("relu-value", lambda: mlp(nn.ReLU), ntk.value),
    Case("sigmoid-value", lambda: mlp(nn.Sigmoid, (2, 33, 17, 1)), ntk.value),
    Case("softplus-variable_coefficient", lambda: mlp(nn.Softplus, (2, 5, 37, 1)), variable_coefficient),
    Case("linear-value", lambda: nn.Linear(2, 3), ntk.value),
    Case("linear-u_t", lambda: nn.Sequential(nn.Linear(2, 1)), u_t),
    Case("several_outputs-value", lambda: mlp(nn.Tanh, (2, 9, 3)), ntk.value),
    Case("several_outputs-one", lambda: mlp(nn.Tanh, (2, 9, 3)), ntk.value[1]),
    Case("classifier-value", lambda: mlp(nn.ReLU, (30, 8, 10)), ntk.value, columns=30),
    Case("one_input-u_xx", lambda: mlp(nn.Tanh, (1, 16, 16, 1)), u_xx, columns=1),
    Case("one_input-slope_and_curvature", lambda: mlp(nn.Tanh, (1, 16, 1)), slope_and_curvature, columns=1),
    Case("three_inputs-wave", lambda: mlp(nn.Tanh, (3, 16, 16, 1)), wave_in_the_plane, columns=3),
    Case("three_inputs-gradient", lambda: mlp(ntk.Sin, (3, 9, 17, 1)), gradient_in_the_plane, columns=3),
    Case("one_hidden_unit-u_xx", lambda: mlp(nn.Tanh, (1, 1, 1)), u_xx, columns=1),
    Case("five_inputs-poisson", lambda: mlp(nn.Tanh, (5, 16, 16, 1)), poisson5, columns=5),
]

# Its float32 products run on matrix tiles, where there are any: the sweeps' by their widths, a gradient's by 332 rows.
WIDE = Case("wide", lambda: mlp(nn.Tanh, (2, 120, 130, 1)), wave, n=83)


def wave_groups(n: int = 12, dtype: torch.dtype = torch.float64) -> dict[str, tuple[Tensor, Any]]:
    """Three groups of different sizes and channels on the unit square."""
    sizes = {"u": (n + 3, ntk.value), "ut": (n - 5, u_t), "r": (n, wave)}
    return {g: (uniform(m, 2, seed).to(dtype), residual) for seed, (g, (m, residual)) in enumerate(sizes.items(), 10)}
