"""Memory budgets: what a streaming sweep needs, and the tile and the chunk that fit a given number of bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch

from .chain import Chain
from .cost import factor_entries
from .recording import Recording
from .sweep import GroupArgs, lone
from .tiles import digit_row, split_row

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# As csrc/cpu has them; tests/test_tiles.py holds both together.
_PANEL_BYTES = 128  # two of the widest vectors: one row of a panel
_STRIP_ROWS, _SHARED_PAIRS, _TASK_PANELS = 32, 64, 2
_SUMS_BYTES = 32 * _STRIP_ROWS * _PANEL_BYTES  # of the strips that are summed together
_TILE_ROWS, _WIDE, _WIDE_TILE_ROWS = 128, 320, 192  # of a tile; of layers wider than that on matrix tiles
FACTOR_BYTES = 2**30  # without a budget
LEAST_COLUMNS = 32  # of explicit Jacobians at a time
# Points of a piece: with fewer than the first, workspaces weigh more than factors, and calls more than products, so
# that only a budget without room for them gets fewer.
FEW_POINTS, LEAST_POINTS = 32, 8


def parse_memory(memory: int | str | None) -> int | None:
    """Return a budget in bytes.

    Args:
        memory: bytes, or a number with a unit (``"256MB"``, ``"1.5 GiB"``), or None: no budget.

    Returns:
        Bytes, or None.

    Raises:
        TypeError: neither an int, a str nor None.
        ValueError: not positive, or no such unit.

    Example:
        >>> parse_memory("256MB")
        256000000
    """
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, (int, str)):
        raise TypeError(f"memory: expected bytes or a string such as '256MB', got {type(memory).__name__}")
    size = memory
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", memory)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f"memory: expected bytes or a string such as '256MB' or '1GiB', got {memory!r}")
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    if not isinstance(size, int) or size <= 0:
        raise ValueError(f"memory: expected a positive number of bytes, got {memory!r}")
    return size


def factor_bytes(chain: Chain, groups: GroupArgs, points: int | None = None) -> int:
    """Bytes of A and D of all groups, or of `points` points of each, and of what is needed to find them."""
    stash = not groups.linear or chain.device.type == "cuda"  # linear residuals keep no Z on a CPU
    entries = 0
    for n, recording in zip(groups.sizes, groups.recordings, strict=True):
        spec, rows = recording.spec, n if points is None else min(n, points)
        sizes = (spec.n_channels, rows, sum(spec.n_cotangents), stash)
        entries += sum(factor_entries(*widths, *sizes) for widths in pairwise(chain.widths))
        entries += rows * _evaluated(recording, chain)
    return chain.dtype.itemsize * entries


def _evaluated(recording: Recording, chain: Chain) -> int:
    """Numbers a point while rows that are not linear are evaluated: channels and forms, and their gradients."""
    if recording.linear:
        return 0
    return 4 * (recording.spec.n_channels * chain.out_features + len(recording.forms))


def _number_bytes(chain: Chain, depth: int) -> int:
    """Bytes of a packed weight in a product of this depth."""
    return split_row(chain, depth) // depth or chain.dtype.itemsize


def digit_bytes(chain: Chain, groups: GroupArgs, explicit: Sequence[int], points: int | None = None) -> int:
    """Bytes of A and D of a gram's structured layers in digits: of all rows, or of `points` points a group."""
    structured = [sizes for sizes, formed in zip(pairwise(chain.widths), explicit, strict=True) if not formed]
    inputs, outputs = (sum(digit_row(chain, sizes[side]) for sizes in structured) for side in (0, 1))
    total = 0
    for n, recording in zip(groups.sizes, groups.recordings, strict=True):
        rows = n if points is None else min(n, points)
        spec = recording.spec
        cotangents = sum(spec.n_cotangents)
        total += (rows + -rows % 16) * (spec.n_channels * inputs + cotangents * outputs)
    return total


def gram_bytes(
    chain: Chain, x: GroupArgs, y: GroupArgs | None, explicit: Sequence[int], points: int, together: int = 1
) -> int:
    """Bytes of a tile of a gram, and of the factors of `points` points of a group of x and of one of y (None: x).

    So many components of a point are summed together.
    """
    sides = [[lone(side, i) for i in range(len(side.names))] for side in (x, x if y is None else y)]
    factors = [max(factor_bytes(chain, group, points) for group in side) for side in sides]
    digits = max(digit_bytes(chain, group, explicit, points) for group in sides[0])
    rows, columns = (max(min(g.sizes[0], points) * g.recordings[0].n_components for g in side) for side in sides)
    formed = LEAST_COLUMNS * (rows + columns) if any(explicit) else 0
    return sum(factors) + digits + chain.dtype.itemsize * (rows * columns // together**2 + formed)


def panel_bytes(chain: Chain, x: GroupArgs, y: GroupArgs | None, together: int = 1) -> int:
    """Bytes that the threads of a gram work in (csrc/cpu/gram.cpp).

    Two panels each, which are of A and of D of the components that are summed together, their sums, and where
    components share products of A, these.
    """
    columns = x if y is None else y
    inputs, others = (max((r.spec.n_channels for r in side.recordings), default=1) for side in (x, columns))
    cotangents = max((max(r.spec.n_cotangents) for r in columns.recordings), default=1) * together
    shared = min(inputs * others, _SHARED_PAIRS) if any(r.n_components > 1 for r in x.recordings) else 0
    panels = _PANEL_BYTES * ((others + cotangents) * max(chain.widths) + _STRIP_ROWS * shared)
    return torch.get_num_threads() * _TASK_PANELS * (panels + _SUMS_BYTES)


def _stack_row(width: int, item: int) -> int:
    """Bytes of a row of a tile's stack (`padded` in csrc/cpu/sweep.h)."""
    lines = -(-width * item // 64)
    return 64 * (lines + 1 if lines % 8 == 0 else lines)


def streaming_bytes(chain: Chain, groups: GroupArgs, tile_rows: int) -> int:
    """Bytes of a streaming sweep whatever the number of points: packed weights and one tile a thread.

    Of a tile (csrc/cpu/diag.cpp): the inputs, A and D twice, Z of every layer, products of channels, and of two panels.
    """
    item, widths = chain.dtype.itemsize, chain.widths
    channels = max((r.spec.n_channels for r in groups.recordings), default=1)
    split = split_row(chain, max(widths))
    rows = max(tile_rows or (_WIDE_TILE_ROWS if split and max(widths) > _WIDE else _TILE_ROWS), channels)
    several = any(r.n_components > 1 for r in groups.recordings)  # the cotangents of a lone one lie over Z
    widest = max(widths[1:])
    stacked = (widths[0], widest, widest, *2 * (widest if several else widths[-1],), *widths[1:])
    stacks = sum(_stack_row(width, item) for width in stacked)
    products = (len(chain.layers) + 1) * (channels + 1) // 2 + 1
    tile = rows * (2 * _PANEL_BYTES + stacks + item * products) + 2 * (rows + -rows % 16) * split
    packed = sum((_number_bytes(chain, m) + _number_bytes(chain, n)) * (m + 32) * (n + 32) for n, m in pairwise(widths))
    return torch.get_num_threads() * tile + packed


def point_bytes(chain: Chain, groups: GroupArgs) -> int:
    """Bytes per point that a streaming sweep holds beside its tiles: inputs, outputs, the diagonal by layers."""
    item, most = chain.dtype.itemsize, 1
    for recording in groups.recordings:
        spec = recording.spec
        numbers = spec.n_channels * (2 * chain.out_features + 1) + chain.in_features + _evaluated(recording, chain)
        most = max(most, item * numbers + 8 * len(chain.layers) * len(spec.components))
    return most


def streaming_plan(chain: Chain, groups: GroupArgs, budget: int | None) -> tuple[int, int]:
    """Return (tile rows, points at a time) of a streaming sweep; 0 tile rows leaves them to the cache.

    Raises:
        ValueError: the budget is below one minimal tile.
    """
    each = point_bytes(chain, groups)
    if budget is None:
        return 0, max(1, 2**26 // each)
    channels = max((r.spec.n_channels for r in groups.recordings), default=1)
    if chain.device.type == "cuda":
        return _device_plan(chain, groups, budget, each)
    least = streaming_bytes(chain, groups, channels) + 64 * each
    if budget < least:
        raise ValueError(f"memory: expected at least {least} bytes for one tile of this network, got {budget}")
    rows = _TILE_ROWS
    while rows > channels and streaming_bytes(chain, groups, rows) > (3 * budget) // 4:
        rows //= 2
    rows = max(rows, channels)
    return rows, max(64, (budget - streaming_bytes(chain, groups, rows)) // each)


def _device_plan(chain: Chain, groups: GroupArgs, budget: int, each: int) -> tuple[int, int]:
    """The same on a GPU, where the stacks of a chunk of points lie in a workspace (csrc/cuda/diag.h)."""
    widths = chain.widths
    row = chain.dtype.itemsize * (sum(widths[:-1]) + 2 * sum(widths[1:]) + widths[-1])
    rows = 1
    for recording in groups.recordings:
        rows = max(rows, recording.spec.n_channels, sum(recording.spec.n_cotangents))
    least = rows * row + 64 * each
    if budget < least:
        raise ValueError(f"memory: expected at least {least} bytes for one point of this network, got {budget}")
    rows = max(rows, 3 * budget // (4 * row))
    return rows, max(64, (budget - rows * row) // each)
