"""The library's side of every comparison: its public names, and below them what measures a part of it alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


@cache
def residuals() -> dict:
    """The residuals of the three groups of the wave problem: value, velocity, interior."""
    import ntkfast as ntk

    @ntk.residual("t", "x")
    def velocity(u):
        return u.d(t=1)

    @ntk.residual("t", "x")
    def wave(u):
        return u.d(t=2) - 4.0 * u.d(x=2)

    return {"u": ntk.value, "ut": velocity, "r": wave}


def trace(net: nn.Module, points: Tensor, memory: str | None = None) -> Tensor:
    """tr K of the wave residual."""
    import ntkfast as ntk

    return ntk.trace(net, points, residuals()["r"], memory=memory)


def traces(net: nn.Module, points: dict[str, Tensor]) -> dict[str, Tensor]:
    """tr K of the groups of the wave problem, one sweep for all of them."""
    import ntkfast as ntk

    return ntk.trace(net, {name: (x, residuals()[name]) for name, x in points.items()})


def diag(net: nn.Module, points: Tensor) -> Tensor:
    """K_ii of the wave residual, (n,)."""
    import ntkfast as ntk

    return ntk.diag(net, points, residuals()["r"])


def gram(net: nn.Module, points: Tensor) -> Tensor:
    """K of the wave residual, (n, n)."""
    import ntkfast as ntk

    return ntk.gram(net, points, residuals()["r"])


def gram_of_outputs(net: nn.Module, points: Tensor, summed: bool) -> Tensor:
    """K of all outputs, (n·o, n·o), or summed over them, (n, n)."""
    import ntkfast as ntk

    return ntk.gram(net, points, sum_components=summed)


def factors(net: nn.Module, points: Tensor):
    """One sweep of the wave residual."""
    import ntkfast as ntk

    return ntk.factors(net, points, residuals()["r"])


@cache
def workspace():
    """The buffers that a training loop reuses from step to step, as the trainer does."""
    import ntkfast as ntk

    return ntk.Workspace()


@cache
def gradients(net: nn.Module) -> dict[str, Tensor]:
    """Memory for the gradient, reused from step to step, as the trainer does."""
    return {name: torch.empty_like(p) for name, p in net.named_parameters()}


def step(
    net: nn.Module, points: dict[str, Tensor], weights: dict[str, float], traces: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Loss Σ_g λ_g mean(r²) and its gradient from one sweep; ``traces`` adds those of all groups from that sweep."""
    import ntkfast as ntk

    groups = {name: (x, residuals()[name]) for name, x in points.items()}
    found = ntk.loss_gradient(net, groups, weights, traces=traces, out=gradients(net), workspace=workspace())
    return sum(weights[name] * loss for name, loss in found.losses.items()), list(found.gradient.values())


def prepared_step(
    net: nn.Module, points: dict[str, Tensor], weights: dict[str, float], traces: bool
) -> Callable[[], tuple[Tensor, list[Tensor], dict[str, Tensor]]]:
    """A call of the step with memory of its own, as a captured graph needs it; it returns the traces too."""
    import ntkfast as ntk

    groups = {name: (x, residuals()[name]) for name, x in points.items()}
    buffers, out = ntk.Workspace(), {name: torch.empty_like(p) for name, p in net.named_parameters()}

    def call():
        found = ntk.loss_gradient(net, groups, weights, traces=traces, out=out, workspace=buffers)
        loss = sum(weights[name] * loss for name, loss in found.losses.items())
        return loss, list(found.gradient.values()), found.traces or {}

    return call


def step_traces(net: nn.Module, points: dict[str, Tensor]) -> dict[str, Tensor]:
    """The traces of all groups of a step."""
    import ntkfast as ntk

    return ntk.factors(net, {name: (x, residuals()[name]) for name, x in points.items()}).trace()


def product(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """A call of the library's own dense product a @ b, into reused memory."""
    from ntkfast import _ops

    out = a.new_empty(a.shape[0], b.shape[1])

    def multiply() -> Tensor:
        _ops.gemm(a, b, out)
        return out

    return multiply


@cache
def laplacian(channels: int):
    """A residual with so many channels and the number of its inputs: the value, or a Laplacian in C − 2 dimensions."""
    import ntkfast as ntk

    if channels == 1:
        return ntk.value, 2
    names = tuple(f"x{k}" for k in range(channels - 2))
    return ntk.residual(*names)(lambda u: u.laplacian(*names)), len(names)


def contraction(net: nn.Module, points: Tensor, residual, method: str) -> tuple[Callable[[], Tensor], int]:
    """A call of the Gram of stored factors by one path, into reused memory; and the structured path's flops."""
    import ntkfast as ntk
    from ntkfast.contraction import contract, paths

    snapshot = ntk.factors(net, points, residual)._snapshot
    n, widths = snapshot.groups.residual_rows, snapshot.chain.widths
    out = points.new_empty(n, n)
    chosen = paths(snapshot.chain, snapshot.groups, None, method)
    channels = snapshot.groups.cotangent_rows // max(n, 1)
    flops = sum(n * n * channels * channels * (a + b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def call() -> Tensor:
        contract(snapshot, snapshot, out, chosen)
        return out

    return call, flops


def gram_flops(net: nn.Sequential, n: int, channels: int = 4) -> int:
    """Flops of the paths that a symmetric gram takes, one triangle."""
    from ntkfast.cost import gram_cost, gram_paths

    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    widths = [layers[0].in_features, *(layer.out_features for layer in layers)]
    shapes = zip(gram_paths(widths, channels, n), widths[:-1], widths[1:], strict=True)
    return 2 * sum(gram_cost(path, n_in, n_out, channels, n) for path, n_in, n_out in shapes)


def operator(net: nn.Module, points: Tensor):
    """K of the wave residual as an operator."""
    import ntkfast as ntk

    return ntk.NTKOperator(net, points, residuals()["r"])
