"""The kernel of a linear residual is the operator on both arguments of the kernel of the value.

K_{Lu}(x, x') = L_x L_x' K_u(x, x'), K_u from its definition, derivatives by automatic differentiation of it.
"""

from collections.abc import Callable

import pytest
import torch
from cases import close, mlp, randomized, uniform
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

import ntkfast as ntk

T, X = torch.eye(2, dtype=torch.float64)
Function = Callable[[Tensor], Tensor]


def along(f: Function, v: Tensor) -> Function:
    """The derivative along v."""
    return lambda z: jvp(f, (z,), (v,))[1]


OPERATORS = {
    "u_t": (lambda u: u.d(t=1), lambda f: along(f, T)),
    "wave": (
        lambda u: u.d(t=2) - 4.0 * u.d(x=2),
        lambda f: lambda z: along(along(f, T), T)(z) - 4.0 * along(along(f, X), X)(z),
    ),
    "advection": (
        lambda u: u.d(t=1) + 0.7 * u.d(x=1) - 2.0 * u,
        lambda f: lambda z: along(f, T)(z) + 0.7 * along(f, X)(z) - 2.0 * f(z),
    ),
    "heat": (
        lambda u, at: u.d(t=1) - (1.0 + at.x) * u.d(x=2),
        lambda f: lambda z: along(f, T)(z) - (1.0 + z[1]) * along(along(f, X), X)(z),
    ),
}
NETWORKS = {
    "tanh": lambda: mlp(nn.Tanh, (2, 9, 7, 1)),
    "sin": lambda: mlp(ntk.Sin, (2, 12, 1)),
    "gelu": lambda: mlp(nn.GELU, (2, 6, 5, 6, 1)),
}


def kernel_of_the_value(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    parameters = dict(net.named_parameters())

    def row(x: Tensor) -> dict[str, Tensor]:
        return grad(lambda p: functional_call(net, p, (x,))[0])(parameters)

    return lambda x, y: sum((a * b).sum() for a, b in zip(row(x).values(), row(y).values(), strict=True))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_operator_acts_on_both_arguments(network: str, name: str):
    net = randomized(NETWORKS[network]()).double()
    residual, apply = OPERATORS[name]
    x, y = uniform(3, 2, 1), uniform(2, 2, 2)
    k = kernel_of_the_value(net)
    twice = [[apply(lambda b, a=a: apply(lambda z, b=b: k(z, b))(a))(b) for b in y] for a in x]
    expected = torch.stack([torch.stack(row) for row in twice]).detach()
    found = ntk.gram(net, x, ntk.residual("t", "x")(residual), y)
    assert close(found, expected, torch.float64)
    assert torch.linalg.matrix_norm(found - expected) <= 1e-9 * torch.linalg.matrix_norm(expected)
