"""What a layer costs, in multiply–adds, and which of two ways to a gram is the cheaper one: pure arithmetic on sizes.

A layer has n_in inputs and n_out outputs, its factors A (C, n, n_in) and D (C, n, n_out) for n rows with C channels
each.

    sweep, one direction                    n C n_in n_out
    diagonal, trace                         n C² (n_in + n_out)
    gram, structured                        n m C C' (n_in + n_out)
    gram, explicit                          (n C + m C') n_in n_out + n m n_in n_out
    Jᵀx, J v                                n C n_in n_out

A symmetric gram computes one triangle, which halves what is quadratic in n, and forms one Jacobian instead of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

GramPath = Literal["structured", "explicit"]

# Multiply–adds that would take as long, on a CPU core.
_HADAMARD, _FORM, _SECOND_PASS, _EXPLICIT_START = 12, 8, 24, 3e6


def gram_paths(
    widths: Sequence[int],
    channels: int,
    n: int,
    m: int | None = None,
    other: int | None = None,
    *,
    shared: float = 1.0,
    summed: int = 1,
    depth: Callable[[int], float] = float,
) -> tuple[GramPath, ...]:
    """Return the cheapest way to a gram, layer by layer.

    In time of multiply–adds an entry of K, with what the native core was measured to spend beside them:

        structured layer    C C' (n_in/s + n_out + 12)         two tile products and a Hadamard product each
        explicit layer      n_out (n_in + 1) + 8 (C/m + C'/n) n_out (n_in + 1)         the product, and forming J
        any explicit one    3e6 over the entries, once: its buffers and its tasks
        both kinds          24 once: a second pass over K

    A structured layer's n_in and n_out count what products of that depth take; s components of a point share those of
    its inputs. A K that is summed over k components takes 1/k of that where all layers are structured, and all entries
    where any is explicit.

    These constants are those of a CPU core. On CUDA the same model chooses, where they are not yet measured.

    Args:
        widths: the sizes (d, w₁, …, o).
        channels: C, channels per row.
        n: rows.
        m: rows of the other side; None for a symmetric gram.
        other: C', channels of the other side; C if None.
        shared: s, components that share products of inputs.
        summed: k, components that K is summed over.
        depth: the cost of a structured product by its depth, in multiply–adds; by default as many.

    Returns:
        "structured" (products of small Grams) or "explicit" (the layer's Jacobian, then its product) for each layer.

    Example:
        >>> from ntkfast.cost import gram_paths
        >>> gram_paths((2, 500, 500, 1), channels=4, n=300)
        ('explicit', 'structured', 'explicit')
    """
    if n == 0 or m == 0:
        return ("structured",) * (len(widths) - 1)
    other = channels if other is None else other
    structured, explicit = [], []
    for n_in, n_out in pairwise(widths):
        columns = n_out * (n_in + 1)
        forming = 2 * channels / n if m is None else channels / m + other / n
        structured.append(channels * other * (depth(n_in) / shared + depth(n_out) + _HADAMARD))
        explicit.append(columns * (1 + _FORM * forming))
    start = _EXPLICIT_START / (n * n / 2 if m is None else n * m)
    mixed: list[GramPath] = ["structured" if a <= b else "explicit" for a, b in zip(structured, explicit, strict=True)]
    both, all_explicit = sum(map(min, structured, explicit)) + start + _SECOND_PASS, sum(explicit) + start
    if sum(structured) / summed <= min(both, all_explicit):
        return ("structured",) * len(mixed)
    return ("explicit",) * len(mixed) if all_explicit <= both else tuple(mixed)


def gram_cost(
    path: GramPath, n_in: int, n_out: int, channels: int, n: int, m: int | None = None, other: int | None = None
) -> int:
    """Return the multiply–adds of a layer's part of the gram, rounded up.

    Args:
        path: "structured" or "explicit".
        n_in: input features of the layer.
        n_out: output features of the layer.
        channels: C, channels per row.
        n: rows.
        m: rows of the other side; None for a symmetric gram.
        other: C', channels of the other side; C if None.

    Returns:
        The count.

    Raises:
        ValueError: another path.

    Example:
        >>> from ntkfast.cost import gram_cost
        >>> gram_cost("structured", 500, 500, channels=4, n=300, m=300)
        1440000000
    """
    other = channels if other is None else other
    entries = n * n if m is None else n * m
    if path == "structured":
        form, pairs = 0, entries * channels * other * (n_in + n_out)
    elif path == "explicit":
        form = (n * channels + (0 if m is None else m * other)) * n_in * n_out
        pairs = entries * n_in * n_out
    else:
        raise ValueError(f"gram_cost: expected path 'structured' or 'explicit', got {path!r}")
    return form + (-(-pairs // 2) if m is None else pairs)


def trace_cost(n_in: int, n_out: int, channels: int, n: int) -> int:
    """Return the multiply–adds of a layer's part of the trace or diagonal: n C² (n_in + n_out).

    Example:
        >>> from ntkfast.cost import trace_cost
        >>> trace_cost(500, 500, channels=4, n=300)
        4800000
    """
    return n * channels * channels * (n_in + n_out)


def sweep_cost(n_in: int, n_out: int, channels: int, n: int) -> int:
    """Return the multiply–adds of a layer in one sweep, forward or backward, and in Jᵀx or J v: n C n_in n_out.

    Example:
        >>> from ntkfast.cost import sweep_cost
        >>> sweep_cost(500, 500, channels=4, n=300)
        300000000
    """
    return n * channels * n_in * n_out


def factor_entries(
    n_in: int, n_out: int, channels: int, n: int, cotangents: int | None = None, stash: bool = False
) -> int:
    """Return the numbers that a layer's factors hold: n (C n_in + C' n_out), and n C n_out of its stash.

    Args:
        n_in: inputs of the layer.
        n_out: outputs of it.
        channels: C, those of the inputs: every component shares them.
        n: points.
        cotangents: C', those of all components together; None: C, as of one component that needs all channels.
        stash: whether Z is kept too, as for residuals that are not linear.

    Returns:
        How many.

    Example:
        >>> from ntkfast.cost import factor_entries
        >>> factor_entries(500, 500, channels=4, n=300)
        1200000
    """
    return n * (channels * n_in + ((channels if cotangents is None else cotangents) + stash * channels) * n_out)
