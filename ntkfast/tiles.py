"""Which products run on the matrix tiles of the processor (csrc/cpu/{product,digits}.h), and what they take."""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import _C
from .chain import Chain

_LEAST_DEPTH, _SPLIT_BYTES = 112, 6  # three bfloat16: a number of a sweep as the matrix tiles take it
_DIGITS = {torch.float32: (3, 0.5), torch.float64: (7, 0.8)}  # of eight bits; the time they take, in multiply–adds
_MOST_DIGIT_DEPTH = 16384


def _has_tiles(chain: Chain) -> bool:
    return _C.isa() == "amx" and chain.device.type == "cpu"


def split_row(chain: Chain, depth: int) -> int:
    """Bytes of a row of so many numbers of a sweep, split for the matrix tiles; 0 where it is not."""
    split = _has_tiles(chain) and chain.dtype == torch.float32 and depth >= _LEAST_DEPTH
    return _SPLIT_BYTES * (depth + -depth % 32) if split else 0


def _on_digits(chain: Chain, depth: int) -> bool:
    worthwhile = _DIGITS[chain.dtype][1] * _padded(depth) <= depth <= _MOST_DIGIT_DEPTH
    return _has_tiles(chain) and worthwhile


def _padded(depth: int) -> int:
    return depth + -depth % 64


def gram_depth(chain: Chain) -> Callable[[int], float]:
    """The cost of a structured product of a gram by its depth, in multiply–adds by vectors."""
    return lambda depth: _DIGITS[chain.dtype][1] * _padded(depth) if _on_digits(chain, depth) else depth


def shared_products(chain: Chain, components: float) -> float:
    """How many of the components of a point share products of its inputs in a gram: vectors do (csrc/cpu/gram.cpp)."""
    return max(components, 1.0) if chain.device.type == "cpu" and not _has_tiles(chain) else 1.0


def digit_row(chain: Chain, depth: int) -> int:
    """Bytes of a row of so many numbers in digits, for a gram; 0 where its products go by vectors."""
    return _DIGITS[chain.dtype][0] * _padded(depth) + chain.dtype.itemsize if _on_digits(chain, depth) else 0
