"""The parameters that a Jacobian is taken by: those that require grad, or some of them by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from .chain import Chain


def select(chain: Chain, wrt: str | Sequence[str] | None = None) -> tuple[tuple[bool, bool], ...]:
    """Return, layer by layer, whether the weight and the bias are parameters to differentiate by.

    Args:
        chain: the network.
        wrt: None for all parameters with ``requires_grad``; or one or several fnmatch patterns on parameter names,
            which choose among those.

    Returns:
        (weight, bias) for each layer.

    Raises:
        ValueError: a pattern that matches no parameter with ``requires_grad``.
        TypeError: patterns that are no strings.

    Example:
        >>> from torch import nn
        >>> from ntkfast.chain import chain_of
        >>> from ntkfast.selection import select
        >>> select(chain_of(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))), "*.weight")
        ((True, False), (True, False))
    """
    free = tuple(
        (
            layer.weight_name is not None and layer.weight.requires_grad,
            layer.bias is not None and layer.bias.requires_grad,
        )
        for layer in chain.layers
    )
    if wrt is None:
        return free
    if not isinstance(wrt, Iterable):
        raise TypeError(f"wrt: expected patterns on parameter names, such as '2.weight', got {wrt!r}")
    patterns = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"wrt: expected patterns on parameter names, such as '2.weight', got {pattern!r}")
    names = [name for name, p in chain.parameters().items() if p.requires_grad]
    for pattern in patterns or ("",):
        if not any(fnmatchcase(name, pattern) for name in names):
            listed = ", ".join(names) or "none"
            raise ValueError(f"wrt: expected a pattern that matches a trainable parameter ({listed}), got {pattern!r}")

    def wanted(name: str | None) -> bool:
        return name is not None and any(fnmatchcase(name, pattern) for pattern in patterns)

    return tuple(
        (w and wanted(layer.weight_name), b and wanted(layer.bias_name))
        for layer, (w, b) in zip(chain.layers, free, strict=True)
    )
