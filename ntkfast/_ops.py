"""Typed wrappers of the native operators, and their fake rules: the only file that says `torch.ops`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _C  # noqa: F401  loads the operators

if TYPE_CHECKING:
    from .sweep import ChainArgs, GroupArgs

# ------------------------------------------------------------------------------------------------------- activation jet


def activation_forward(
    z: Tensor,
    omega: Tensor,
    activation: int,
    directions: int,
    beta: float = 1.0,
    threshold: float = 20.0,
) -> Tensor:
    """Push one elementwise activation through all channels of a jet.

    h_0 = σ(z_0);  h_k = σ'z_k for the F directions;  h_m = σ'z_m + σ'' Σ_k ω_mk z_k² for the M collapsed channels.

    Args:
        z: Channels (1 + F + M, n, w), float32 or float64, contiguous.
        omega: Weights of the second derivatives (1 or n, M, F), contiguous.
        activation: Code of the activation, as in `ntkfast.networks.ACTIVATIONS`.
        directions: F.
        beta: β of softplus.
        threshold: Softplus is linear where βz exceeds it.

    Returns:
        h, of the shape of z. Not differentiable: `activation_backward` is the pull-back.

    Raises:
        RuntimeError: Shapes, dtypes, devices or strides do not fit.
    """
    h = torch.empty_like(z)
    torch.ops.ntkfast.activation_forward(z.detach(), omega.detach(), activation, beta, threshold, directions, h)
    return h


def activation_backward(
    z: Tensor,
    g: Tensor,
    omega: Tensor,
    activation: int,
    directions: int,
    beta: float = 1.0,
    threshold: float = 20.0,
) -> Tensor:
    """Pull cotangents of the activation's output channels back to its input channels.

    z̄_m = σ'g_m;  z̄_k = σ'g_k + 2σ''z_k Σ_m ω_mk g_m;  z̄_0 = σ'g_0 + σ'' Σ_{c≥1} z_c g_c + σ''' Σ_m g_m Σ_k ω_mk z_k².

    Args:
        z: Channels before the activation, (1 + F + M, n, w).
        g: Cotangents of the channels after it, of the shape of z.
        omega: Weights of the second derivatives (1 or n, M, F).
        activation: Code of the activation, as in `ntkfast.networks.ACTIVATIONS`.
        directions: F.
        beta: β of softplus.
        threshold: Softplus is linear where βz exceeds it.

    Returns:
        z̄, of the shape of z. Not differentiable.

    Raises:
        RuntimeError: Shapes, dtypes, devices or strides do not fit.
    """
    zbar = torch.empty_like(z)
    torch.ops.ntkfast.activation_backward(
        z.detach(), g.detach(), omega.detach(), activation, beta, threshold, directions, zbar
    )
    return zbar


# ------------------------------------------------------------------------------------------------------------ sweeps


def jet_forward(chain: ChainArgs, groups: GroupArgs, out: Tensor, A: Tensor, Z: Tensor) -> None:
    """Write the output channels of all groups, and the input stacks A and stash Z unless they are empty."""
    torch.ops.ntkfast.jet_forward(
        chain.parameters,
        chain.activations,
        chain.constants,
        groups.points,
        groups.beta,
        groups.omega,
        groups.spec,
        out,
        A,
        Z,
    )


def jet_backward(chain: ChainArgs, groups: GroupArgs, seeds: list[Tensor], Z: Tensor, D: Tensor) -> None:
    """Write the cotangent stacks D of all components from their seeds and the stash."""
    torch.ops.ntkfast.jet_backward(
        chain.parameters, chain.activations, chain.constants, groups.omega, groups.spec, seeds, Z, D
    )


def diag(chain: ChainArgs, groups: GroupArgs, seeds: list[Tensor], tile_rows: int, out: Tensor) -> None:
    """Write the diagonal of the Gram matrix by layers, (layers, N) in float64, in one streaming sweep."""
    torch.ops.ntkfast.diag(
        chain.parameters,
        chain.activations,
        chain.constants,
        groups.points,
        groups.beta,
        groups.omega,
        groups.spec,
        seeds,
        tile_rows,
        out,
    )


def linear_sweep(
    chain: ChainArgs,
    groups: GroupArgs,
    seeds: list[Tensor],
    offset: Tensor,
    pull: Tensor,
    tile_rows: int,
    rows: Tensor,
    grads: list[Tensor],
    diag: Tensor,
    A: Tensor,
    D: Tensor,
) -> None:
    """Write the rows Σ seeds · channels − offset, and unless empty Jᵀ(pull ∘ rows), the diagonal by layers, A and D."""
    torch.ops.ntkfast.linear_sweep(
        chain.parameters,
        chain.activations,
        chain.constants,
        groups.points,
        groups.beta,
        groups.omega,
        groups.spec,
        seeds,
        offset,
        pull,
        tile_rows,
        rows,
        grads,
        diag,
        A,
        D,
    )


# ----------------------------------------------------------------------------------------------------------- factors


def factor_diag(chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, out: Tensor) -> None:
    """Write the diagonal of the Gram matrix by layers, (layers, N) in float64, from stored factors."""
    torch.ops.ntkfast.factor_diag(chain.parameters, chain.activations, chain.constants, spec, A, D, out)


def vjp(chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, x: Tensor, grads: list[Tensor]) -> None:
    """Write Jᵀx, one tensor a parameter; empty ones are left out."""
    torch.ops.ntkfast.vjp(chain.parameters, chain.activations, chain.constants, spec, A, D, x, grads)


def jvp(chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, tangents: list[Tensor], out: Tensor) -> None:
    """Write J v, (N,) in float64; empty tangents count as zero."""
    torch.ops.ntkfast.jvp(chain.parameters, chain.activations, chain.constants, spec, A, D, tangents, out)


def gram(
    chain: ChainArgs,
    side: tuple[list[int], Tensor, Tensor],
    other: tuple[list[int], Tensor, Tensor],
    symmetric: bool,
    use_explicit: list[int],
    chunk: int,
    together: int,
    out: Tensor,
) -> None:
    """Write K = J J'ᵀ of two sets of factors (spec, A, D), or of one with itself, summed over that many components."""
    torch.ops.ntkfast.gram(
        *(chain.parameters, chain.activations, chain.constants, *side, *other),
        *(symmetric, use_explicit, chunk, together, out),
    )


def gemm(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write the product of a (m, k) and b (k, n) by the tiles that the sweeps are made of."""
    torch.ops.ntkfast.gemm(a, b, out)


def _writes_in_place(*args: object) -> None:
    """The fake rule of every operator here: outputs are the caller's, shapes are known.

    Raises:
        RuntimeError: a meta tensor among others, whose work would be left undone without a word.
    """
    devices = {
        str(x.device) for part in args for x in (part if isinstance(part, list) else [part]) if isinstance(x, Tensor)
    }
    if len(devices) > 1:
        raise RuntimeError(f"ntkfast: expected tensors on one device, got some on {' and '.join(sorted(devices))}.")


_ACTIVATION = ("activation_forward", "activation_backward")
_SWEEPS = ("jet_forward", "jet_backward", "diag", "linear_sweep", "factor_diag", "vjp", "jvp", "gram", "gemm")
for _name in (*_ACTIVATION, *_SWEEPS):
    torch.library.register_fake(f"ntkfast::{_name}")(_writes_in_place)
