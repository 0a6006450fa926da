"""K from the factors of pieces of points, so that factors and workspaces stay within a budget."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import increment_version

from .chain import Chain
from .contraction import contract, paths
from .memory import (
    FACTOR_BYTES,
    FEW_POINTS,
    LEAST_POINTS,
    digit_bytes,
    factor_bytes,
    gram_bytes,
    panel_bytes,
    streaming_bytes,
)
from .snapshot import Snapshot, Workspace, scratch, sweep
from .streaming import chunks
from .sweep import ChainArgs, GroupArgs


def assemble(
    chain: Chain,
    args: ChainArgs,
    x: GroupArgs,
    y: GroupArgs | None,
    method: str,
    budget: int | None,
    out: Tensor | None,
    summed: int = 1,
) -> Tensor:
    """Write K of the rows of x and y.

    Args:
        chain: the network.
        args: its native form.
        x: the rows of K.
        y: the columns of K; None: those of x, and K is symmetric.
        method: one of ``contraction.METHODS``.
        budget: bytes of factors and workspaces; None: 1 GiB.
        out: where K is written; None: it is made.
        summed: k, to sum K[(i, j), (i', j)] over the k components j of a point; 1: leave K as it is.

    Returns:
        K, (N, M) or, summed, (N/k, M/k).
    """
    shape = (x.residual_rows // summed, (x if y is None else y).residual_rows // summed)
    like = args.parameters[0]
    K = like.new_empty(shape) if out is None else _check_out(out, shape, like)
    chosen = paths(chain, x, y, method, summed)
    # Structured layers sum over components as they go, explicit ones leave their entries to be summed up.
    together, entries = (1, summed) if any(chosen) else (summed, 1)
    # A part of the budget each for the Jacobians of explicit layers, of rows and of columns, at a time.
    formed = None if budget is None else budget // 8
    panels = panel_bytes(chain, x, y, together)
    beside = streaming_bytes(chain, x, 0) + panels + (2 * (formed or 0) if any(chosen) else 0)
    sizes = [0 if side is None else factor_bytes(chain, side) for side in (x, y)]
    whole = K.nbytes * entries**2 if entries > 1 else 0
    if not K.numel() or sum(sizes) + digit_bytes(chain, x, chosen) + whole + beside <= (budget or FACTOR_BYTES):
        with scratch("x", sizes[0], like.device) as own, scratch("y", sizes[1], like.device) as others:
            f = sweep(chain, args, x, own)
            target = like.new_empty(x.residual_rows, shape[1] * entries) if entries > 1 else K
            g = f if y is None else sweep(chain, args, y, others)
            contract(f, g, target, chosen, formed, together=together)
        return K.copy_(_summed(target, entries)) if entries > 1 else K
    points = _points_at_once(chain, x, y, chosen, together, budget or FACTOR_BYTES, beside)
    left = list(chunks(chain, args, x, points, joined=False))  # a group at a time, as points were counted
    right = left if y is None else list(chunks(chain, args, y, points, joined=False))
    for i, (row, piece, seeds) in enumerate(left):
        f = g = None  # factors of one piece a side were counted: the last ones go before the next ones are made
        f = sweep(chain, args, piece, Workspace(), seeds)
        for j, (column, other, other_seeds) in enumerate(right if y is not None else right[: i + 1]):
            g = None
            g = f if y is None and i == j else sweep(chain, args, other, Workspace(), other_seeds)
            place = (row // summed, column // summed)
            _write_tile(K, place, _tile(f, g, chosen, formed, together, entries), y is None and i != j)
    return K


def _tile(f: Snapshot, g: Snapshot, explicit: list[int], formed: int | None, together: int, entries: int) -> Tensor:
    """K of a piece of either side, summed up."""
    part = f.A.new_empty(f.groups.residual_rows // together, g.groups.residual_rows // together)
    contract(f, g, part, explicit, formed, together=together)
    return _summed(part, entries)


def _write_tile(K: Tensor, place: tuple[int, int], tile: Tensor, mirrored: bool) -> None:
    rows, columns = (slice(first, first + size) for first, size in zip(place, tile.shape, strict=True))
    K[rows, columns] = tile
    if mirrored:
        K[columns, rows] = tile.T


def _points_at_once(
    chain: Chain, x: GroupArgs, y: GroupArgs | None, explicit: list[int], together: int, budget: int, beside: int
) -> int:
    """How many points of either side fit a budget, of which `beside` bytes are taken."""

    def needed(points: int) -> int:
        return gram_bytes(chain, x, y, explicit, points, together)

    least, few = needed(LEAST_POINTS), needed(FEW_POINTS)
    if least > budget:
        raise ValueError(f"memory: expected at least {least} bytes for a tile of this kernel, got {budget}")
    # Where there is no room for few points and workspaces both, workspaces come on top.
    fewest, room = (FEW_POINTS, max(few, budget - beside)) if few <= budget else (LEAST_POINTS, budget)
    points = max(*x.sizes, *(x if y is None else y).sizes)
    while points > fewest and (bytes_of := needed(points)) > room:
        points = max(fewest, points * room // (bytes_of + 1))
    return points


def _summed(K: Tensor, k: int) -> Tensor:
    """Σ_j K[(i, j), (i', j)], (N/k, M/k): term by term in one order, so that it stays symmetric."""
    if k == 1:
        return K
    total = K[::k, ::k].clone()
    for j in range(1, k):
        total += K[j::k, j::k]
    return total


def _check_out(out: Tensor, shape: tuple[int, int], like: Tensor) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"gram: expected a tensor as out, got {type(out).__name__}")
    if out.requires_grad:
        raise ValueError("gram: expected an out that requires no grad, got one that does")
    if tuple(out.shape) != shape or out.dtype != like.dtype or out.device != like.device or not out.is_contiguous():
        raise ValueError(
            f"gram: expected out contiguous, {shape} in {like.dtype} on {like.device}, "
            f"got {tuple(out.shape)} in {out.dtype} on {out.device}, strides {out.stride()}"
        )
    increment_version(out)
    return out
