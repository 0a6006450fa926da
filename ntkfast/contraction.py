"""The Gram matrix of stored factors, layer by layer on the cheaper path."""

from __future__ import annotations

from torch import Tensor

from . import _ops
from .chain import Chain
from .cost import gram_paths
from .memory import LEAST_COLUMNS
from .snapshot import Snapshot
from .sweep import GroupArgs
from .tiles import gram_depth, shared_products

METHODS = ("auto", "structured", "explicit")
_CHUNK_BYTES = 8 * 2**20  # of explicit Jacobian columns at a time


def mean_channels(cotangent_rows: int, rows: int) -> int:
    """Channels of a residual row, on average, rounded up: what the cost model knows of components that differ."""
    return max(1, -(-cotangent_rows // max(rows, 1)))


def paths(chain: Chain, x: GroupArgs, y: GroupArgs | None, method: str, summed: int = 1) -> list[int]:
    """For each layer whether its Jacobian is formed (1) or not (0), by cost unless forced.

    Args:
        chain: the network.
        x: the rows of K.
        y: the columns of K; None: those of x.
        method: one of ``METHODS``.
        summed: k, components that K is summed over.
    """
    if method != "auto":
        return [int(method == "explicit")] * len(chain.layers)
    n, m = x.residual_rows, None if y is None else y.residual_rows
    channels = mean_channels(x.cotangent_rows, n)
    others = channels if y is None else mean_channels(y.cotangent_rows, y.residual_rows)
    shared = shared_products(chain, n / max(sum(x.sizes), 1))
    chosen = gram_paths(chain.widths, channels, n, m, others, shared=shared, summed=summed, depth=gram_depth(chain))
    return [int(path == "explicit") for path in chosen]


def contract(
    f: Snapshot,
    g: Snapshot,
    out: Tensor,
    explicit: list[int] | None = None,
    budget: int | None = None,
    specs: tuple[list[int], list[int]] | None = None,
    together: int = 1,
) -> None:
    """Write K = J J'ᵀ of two snapshots of one network; exactly symmetric where both are the same.

    Args:
        f: the rows of K.
        g: the columns of K.
        out: (N, M), contiguous, or what is summed.
        explicit: for each layer whether its Jacobian is formed; None: by cost.
        budget: bytes of explicit Jacobian columns of either side at a time.
        specs: the groups of f and g that take part; None: all.
        together: k, to sum K[(i, j), (i', j)] over the k components j of every group; then no layer is explicit.
    """
    left, right = (f.groups.spec, g.groups.spec) if specs is None else specs
    symmetric = f is g and left == right
    if explicit is None:
        explicit = paths(f.chain, f.groups, None if symmetric else g.groups, "auto")
    rows = max(*out.shape, 1)
    chunk = max(LEAST_COLUMNS, min(_CHUNK_BYTES, budget or _CHUNK_BYTES) // (rows * out.element_size()))
    _ops.gram(f.args, (left, f.A, f.D), (right, g.A, g.D), symmetric, explicit, chunk, together, out)
