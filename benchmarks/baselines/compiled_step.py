"""The step of ``autograd_step`` for ``torch.compile``: derivatives and gradient by ``torch.func``, in one function.

The compiler does not differentiate twice through what it has compiled, so a step with ``torch.autograd.grad`` inside
falls apart at every such call. Transforms of ``torch.func`` are traced whole: forward, derivatives, loss and gradient
become one program. Three ways to write the second derivatives; the fastest one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType

import torch
from setting import SPEED
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp

from .autograd_step import Step

# Arguments of torch.compile by the name of the way.
COMPILERS: dict[str, dict] = {
    "default": {},
    "reduce-overhead": {"mode": "reduce-overhead"},
    "max-autotune-no-cudagraphs": {"mode": "max-autotune-no-cudagraphs"},
}
Field = Callable[[Tensor], Tensor]


def _along(u: Field, x: Tensor, k: int) -> Tensor:
    """∂u/∂x_k of every row, (n,), by forward mode."""
    e = torch.zeros_like(x)
    e[:, k] = 1.0
    return jvp(u, (x,), (e,))[1]


def _forward_rows(u: Field, start: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """u_t and u_tt − c² u_xx, forward mode inside forward mode."""
    tt = _along(lambda y: _along(u, y, 0), inside, 0)
    xx = _along(lambda y: _along(u, y, 1), inside, 1)
    return _along(u, start, 0), tt - SPEED**2 * xx


def _reverse_rows(u: Field, start: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The same by reverse mode inside reverse mode; rows do not mix, so the gradient of a sum has them all."""

    def slope(y: Tensor) -> Tensor:
        return grad(lambda z: u(z).sum())(y)

    tt = grad(lambda y: slope(y)[:, 0].sum())(inside)[:, 0]
    xx = grad(lambda y: slope(y)[:, 1].sum())(inside)[:, 1]
    return slope(start)[:, 0], tt - SPEED**2 * xx


def _mixed_rows(u: Field, start: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The same by forward mode over reverse mode."""

    def slope(y: Tensor) -> Tensor:
        return grad(lambda z: u(z).sum())(y)

    tt, xx = (_along(slope, inside, k)[:, k] for k in (0, 1))
    return slope(start)[:, 0], tt - SPEED**2 * xx


ROWS = {"forward-mode": _forward_rows, "reverse-mode": _reverse_rows, "mixed": _mixed_rows}


def functional(
    net: nn.Module, points: Mapping[str, Tensor], weights: Mapping[str, float], way: str
) -> Callable[[], Step]:
    """A step as one function of nothing: loss Σ_g λ_g mean(r²) and its gradient at the network's parameters."""
    names = [name for name, _ in net.named_parameters()]

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        def u(x: Tensor) -> Tensor:
            return functional_call(net, parameters, (x,))[:, 0]

        velocity, wave = ROWS[way](u, points["ut"], points["r"])
        rows = {"u": u(points["u"]), "ut": velocity, "r": wave}
        return torch.stack([weights[name] * r.square().mean() for name, r in rows.items()]).sum()

    def step() -> Step:
        gradient, value = grad_and_value(loss)({name: p.detach() for name, p in net.named_parameters()})
        return value, [gradient[name] for name in names]

    return step


def compiled(step: Callable[[], Step], options: Mapping[str, object]) -> Callable[[], Step]:
    """``torch.compile`` of a step, whole or not at all; called once, so that it is compiled when this returns."""
    _materialise_zeros()
    # What was compiled is kept with the code: with code of its own a step looks through no other step's programs.
    own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__, None, step.__closure__)
    call = torch.compile(own, fullgraph=True, dynamic=False, **options)
    call()
    return call


def _materialise_zeros() -> None:
    """Forward mode makes tangents that are zero without memory, which the code generator takes for plain memory."""
    from torch._inductor.decomposition import decompositions

    def zeros(size, dtype=None, layout=None, device=None, pin_memory=None) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    decompositions.setdefault(torch.ops.aten._efficientzerotensor.default, zeros)
