"""The least time a device could take: flops over its rate of dense products, bytes over its rate of copying.

Both rates are measured, once a process: a large copy within the device, and large square ``torch.mm`` without TF32.
Bytes are those that have to move at least, each operand read once and each result written once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import measure
import setting
import torch
from setting import Device
from torch import Tensor, nn

CHANNELS = {"u": 1, "ut": 2, "r": 4}  # of the groups of the wave problem
COPIED, SIDES = 2**30, {"float32": 8192, "float64": 8192}  # bytes, and rows of the factors of a product
LANES = {"float32": 128, "float64": 64}  # multiply–adds a cycle of a multiprocessor of Hopper, tensor cores aside


@dataclass(frozen=True)
class Ceilings:
    """What a device was seen to reach, and what its clock and its units promise (None where unknown)."""

    bytes_per_second: float
    flops_per_second: dict[str, float]
    nominal_flops_per_second: dict[str, float | None]


@functools.cache
def ceilings(device: Device, copied: int = COPIED, shrink: int = 1) -> Ceilings:
    """Measure both rates; ``shrink`` divides the sides of the factors."""
    source = torch.empty(copied // 4, device=device).fill_(1.0)
    target = torch.empty_like(source)
    calls = {"copy": lambda: target.copy_(source)}
    for dtype, rows in SIDES.items():
        a, b = torch.ones(2, rows // shrink, rows // shrink, dtype=getattr(torch, dtype), device=device)
        calls[dtype] = functools.partial(torch.mm, a, b, out=torch.empty_like(a))
    timings = measure.in_turn(calls, device=device)
    flops = {dtype: 2 * (rows // shrink) ** 3 / timings[dtype].median for dtype, rows in SIDES.items()}
    return Ceilings(2 * copied / timings["copy"].median, flops, {d: _nominal(device, d) for d in SIDES})


def _nominal(device: Device, dtype: str) -> float | None:
    """Multiprocessors × lanes × 2 × highest clock; lanes are known for Hopper alone."""
    if torch.device(device).type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    clock = getattr(properties, "clock_rate", None)  # kHz; not in every torch
    if not clock or properties.major != 9:
        return None
    return 2e3 * clock * LANES[dtype] * properties.multi_processor_count


def share(seconds: float, flops: float, moved: float, dtype: str, top: Ceilings) -> dict:
    """What a time is of its floor, for JSON: flops, bytes, the larger of their times, and the shares."""
    floor = max(flops / top.flops_per_second[dtype], moved / top.bytes_per_second)
    nominal = top.nominal_flops_per_second[dtype]
    return {
        "flops": flops,
        "bytes": moved,
        "floor_seconds": floor,
        "share_of_floor": floor / seconds,
        "flops_per_second": flops / seconds,
        "share_of_nominal": flops / seconds / nominal if nominal else None,
        "ceilings": asdict(top),
    }


def trace_flops(net: nn.Sequential, points: Mapping[str, Tensor]) -> int:
    """The dense products of a trace of groups of the wave problem: 4·C·N·Σ n_in·n_out each."""
    return sum(setting.product_flops(net, len(x), CHANNELS[name]) for name, x in points.items())


def step_flops(net: nn.Sequential, points: Mapping[str, Tensor]) -> int:
    """Those of a training step: the two sweeps of the trace, and as much as one of them for Jᵀx."""
    return trace_flops(net, points) * 3 // 2


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The memory of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
