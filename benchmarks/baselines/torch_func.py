"""Kernels by ``torch.func``: ``vmap(grad(·))`` of the residual at one point, in chunks of points.

The second derivatives of the residual come by forward-over-reverse (``jvp`` of ``grad``) or forward-over-forward
(``jvp`` of ``jvp``); which is faster depends on the size, so callers measure both. The network is a plain
function, which saves what ``functional_call`` costs per call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from setting import SPEED
from torch import Tensor, nn
from torch.func import grad, jvp, vjp, vmap

Parameters = tuple[Tensor, ...]
MEGABYTES = (8, 32, 128)  # of a chunk of the Jacobian
MODES = ("forward-over-reverse", "forward-over-forward")


def parameters_of(net: nn.Sequential) -> Parameters:
    """Weights and biases in the order of ``named_parameters``."""
    return tuple(p.detach() for p in net.parameters())


def output(parameters: Parameters, x: Tensor) -> Tensor:
    """The tanh network at one point x, (d,): a scalar."""
    for i in range(0, len(parameters) - 2, 2):
        x = torch.tanh(parameters[i] @ x + parameters[i + 1])
    return (parameters[-2] @ x + parameters[-1])[0]


def wave(parameters: Parameters, x: Tensor, mode: str = MODES[0]) -> Tensor:
    """u_tt − c² u_xx at one point."""
    e_t, e_x = torch.eye(2, dtype=x.dtype, device=x.device)

    def u(y: Tensor) -> Tensor:
        return output(parameters, y)

    if mode == MODES[0]:
        tt, xx = (jvp(grad(u), (x,), (e,))[1][k] for k, e in enumerate((e_t, e_x)))
    else:
        tt, xx = (jvp(lambda y, e=e: jvp(u, (y,), (e,))[1], (x,), (e,))[1] for e in (e_t, e_x))
    return tt - SPEED**2 * xx


def velocity(parameters: Parameters, x: Tensor, mode: str = MODES[0]) -> Tensor:
    """u_t at one point."""
    e_t = torch.eye(2, dtype=x.dtype, device=x.device)[0]
    return jvp(lambda y: output(parameters, y), (x,), (e_t,))[1]


def value(parameters: Parameters, x: Tensor, mode: str = MODES[0]) -> Tensor:
    """u at one point."""
    return output(parameters, x)


Residual = Callable[[Parameters, Tensor, str], Tensor]


def jacobian(parameters: Parameters, points: Tensor, residual: Residual = wave, mode: str = MODES[0]) -> Parameters:
    """∂r_i/∂p per parameter tensor, each (n, *shape)."""
    return vmap(grad(lambda p, x: residual(p, x, mode)), in_dims=(None, 0))(parameters, points)


def _jacobians(
    parameters: Parameters, points: Tensor, residual: Residual, mode: str, chunk: int
) -> Iterator[Parameters]:
    for piece in points.split(chunk):
        yield jacobian(parameters, piece, residual, mode)


def diag(
    net: nn.Sequential, points: Tensor, residual: Residual = wave, mode: str = MODES[0], chunk: int = 64
) -> Tensor:
    """K_ii, (n,): squared row norms of the Jacobian, chunk by chunk."""
    pieces = []
    for rows in _jacobians(parameters_of(net), points, residual, mode, chunk):
        flat = [j.flatten(1) for j in rows]
        pieces.append(torch.stack([torch.linalg.vecdot(j, j) for j in flat]).sum(0))
    return torch.cat(pieces)


def trace(
    net: nn.Sequential, points: Tensor, residual: Residual = wave, mode: str = MODES[0], chunk: int = 64
) -> Tensor:
    """tr K: squared norm of the Jacobian, chunk by chunk."""
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    for rows in _jacobians(parameters_of(net), points, residual, mode, chunk):
        for j in rows:
            flat = j.flatten()
            total += torch.dot(flat, flat)
    return total


def gram(
    net: nn.Sequential, points: Tensor, residual: Residual = wave, mode: str = MODES[0], chunk: int = 64
) -> Tensor:
    """K by Jacobian contraction: J is built chunk by chunk, then contracted by one GEMM per parameter."""
    parameters = parameters_of(net)
    n = len(points)
    whole = [p.new_empty(n, p.numel()) for p in parameters]
    start = 0
    for rows in _jacobians(parameters, points, residual, mode, chunk):
        for target, j in zip(whole, rows, strict=True):
            target[start : start + len(j)] = j.flatten(1)
        start += len(rows[0])
    total = points.new_zeros(n, n)
    for j in whole:
        total.addmm_(j, j.t())
    return total


def gram_einsum(net: nn.Sequential, points: Tensor, residual: Residual = wave, mode: str = MODES[0]) -> Tensor:
    """K by Jacobian contraction as it is usually written: the whole Jacobian at once, one einsum per parameter."""
    rows = [j.flatten(1) for j in jacobian(parameters_of(net), points, residual, mode)]
    return torch.stack([torch.einsum("np,mp->nm", j, j) for j in rows]).sum(0)


def operator(net: nn.Sequential, points: Tensor, mode: str = MODES[0]) -> Callable[[Tensor], Tensor]:
    """v ↦ J (Jᵀ v): one vjp and one jvp of all rows."""
    parameters = parameters_of(net)

    def rows(p: Parameters) -> Tensor:
        return vmap(lambda x: wave(p, x, mode))(points)

    def apply(v: Tensor) -> Tensor:
        (pulled,) = vjp(rows, parameters)[1](v)
        return jvp(rows, (parameters,), (pulled,))[1]

    return apply


def options(net: nn.Module, n: int, megabytes: tuple[int, ...] = MEGABYTES) -> dict[str, dict]:
    """Every mode and a few chunk sizes, by the megabytes that the Jacobian of a chunk takes."""
    row = sum(p.numel() * p.element_size() for p in net.parameters())
    chunks = sorted({min(n, max(8, (size << 20) // row)) for size in megabytes})
    return {f"{mode}, chunk {chunk}": {"mode": mode, "chunk": chunk} for mode in MODES for chunk in chunks}


def candidates(
    kernel: Callable[..., Tensor], net: nn.Sequential, points: Tensor, megabytes: tuple[int, ...] = MEGABYTES
) -> dict[str, Callable[[], Tensor]]:
    """A kernel by every one of the options."""
    return {
        name: lambda chosen=chosen: kernel(net, points, **chosen)
        for name, chosen in options(net, len(points), megabytes).items()
    }
