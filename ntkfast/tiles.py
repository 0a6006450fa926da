"""Which products run on the matrix tiles of the processor (csrc/cpu/product.h)."""

from __future__ import annotations

import torch

from . import _C
from .chain import Chain

_LEAST_DEPTH = 112


def least_depth(chain: Chain) -> int | None:
    """Return the depth from which products of this network run on matrix tiles; None: none does."""
    on_tiles = _C.isa() == "amx" and chain.dtype == torch.float32 and chain.device.type == "cpu"
    return _LEAST_DEPTH if on_tiles else None
