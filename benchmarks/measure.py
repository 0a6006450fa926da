"""Honest comparison of two or more ways to compute one thing: verified first, then timed in one run, in turn, warm.

A side that takes milliseconds follows one that takes seconds and has emptied the caches, so each turn starts with an
untimed call and times a burst. Medians are compared; quartiles and cores in use show how quiet the machine was.

On a GPU a call is timed between two events on the current stream, from an idle device to an idle device: what the host
takes to launch counts, as it does for whoever waits for the result.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from setting import Device
from torch import Tensor

SLOW = 0.2  # seconds: above it a call warms itself, and few repeats suffice
FAST_REPEATS, SLOW_REPEATS = 21, 3
BURST = 0.01  # seconds of a burst at least: a few quick calls tell what the side before them left behind
MOST_CALLS = 200  # of a burst


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls."""

    median: float
    low: float
    quartiles: tuple[float, float]
    runs: int
    cores: float | None  # processor time over wall time

    def __str__(self) -> str:
        return f"{1e3 * self.median:.3g} ms [{1e3 * self.quartiles[0]:.3g}, {1e3 * self.quartiles[1]:.3g}]"


def timing_of(seconds: list[float], cores: float | None = None) -> Timing:
    """Median and spread of measured seconds."""
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
    return Timing(statistics.median(seconds), min(seconds), (quartiles[0], quartiles[2]), len(seconds), cores)


def in_turn(
    sides: Mapping[str, Callable[[], object]],
    rounds: int = SLOW_REPEATS,
    repeats: int | None = None,
    device: Device = "cpu",
) -> dict[str, Timing]:
    """Time every side, a burst of each per round.

    Args:
        sides: what to call, by name.
        rounds: how often the turn goes round; a slow side is called once a round.
        repeats: calls of a fast side in all; default 21. One that is quicker than a burst allows for is called more.
        device: where the sides compute.

    Returns:
        One ``Timing`` per side, in the same order.
    """
    first = {name: seconds_of(side, device) for name, side in sides.items()}
    least = math.ceil((repeats or FAST_REPEATS) / rounds)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    processor, wall = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, side in sides.items():
                if first[name] < SLOW:
                    side()
                start, used = time.perf_counter(), time.process_time()
                seconds[name] += burst(side, least if first[name] < SLOW else 1, device)
                processor[name] += time.process_time() - used
                wall[name] += time.perf_counter() - start
    finally:
        gc.enable()
    return {name: timing_of(seconds[name], processor[name] / wall[name]) for name in sides}


def burst(side: Callable[[], object], least: int, device: Device = "cpu") -> list[float]:
    """Seconds of calls one after the other: `least` of them, and more until they have taken ten milliseconds."""
    seconds: list[float] = []
    while len(seconds) < least or (sum(seconds) < BURST and len(seconds) < MOST_CALLS):
        seconds.append(seconds_of(side, device))
    return seconds


def seconds_of(side: Callable[[], object], device: Device = "cpu") -> float:
    """Seconds of one call, by the clock of the device."""
    if torch.device(device).type != "cuda":
        start = time.perf_counter()
        side()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    side()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def fastest(candidates: Mapping[str, Callable[[], object]], device: Device = "cpu") -> str:
    """The name of the fastest way to write a rival; fast ones by the median of a burst, slow ones by one call.

    On a GPU one that does not fit its memory is none, and each is called once before it is timed.

    Raises:
        ValueError: none of them fits.
    """
    best: dict[str, float] = {}
    for name, candidate in candidates.items():
        try:
            if torch.device(device).type == "cuda":
                candidate()
            best[name] = seconds_of(candidate, device)
            if best[name] < 2 * SLOW:
                best[name] = statistics.median(burst(candidate, 4, device))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    if not best:
        raise ValueError(f"expected one of {tuple(candidates)} to fit the memory of {device}, got none")
    return min(best, key=best.__getitem__)


def peak_bytes(call: Callable[[], object], device: Device) -> int | None:
    """Most memory of torch's allocator on a GPU during one call, beyond what it held before; None elsewhere."""
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def relative_error(got: Tensor, expected: Tensor) -> float:
    """‖got − expected‖ / ‖expected‖ in float64, on the device of the first."""
    a = got.detach().double().flatten()
    b = expected.detach().to(a.device, torch.float64).flatten()
    if a.shape != b.shape:
        raise ValueError(f"expected {tuple(expected.shape)} numbers, got {tuple(got.shape)}")
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def verified(
    results: Mapping[str, Tensor], expected: Tensor, tolerance: Mapping[str, float] | float
) -> dict[str, float]:
    """Errors of all sides; a wrong side is never timed.

    Raises:
        ValueError: an error is above its tolerance (or NaN).
    """
    errors = {name: relative_error(result, expected) for name, result in results.items()}
    for name, error in errors.items():
        bound = tolerance if isinstance(tolerance, float) else tolerance[name]
        if not error <= bound:
            raise ValueError(f"expected {name} within {bound:g} of the float64 result, got {error:.2e}")
    return errors


def comparison(size: Mapping[str, object], timings: Mapping[str, Timing], **more: object) -> dict:
    """A record for JSON: size, seconds of every side, load, and whatever else belongs to it."""
    load = [round(x, 2) for x in os.getloadavg()]
    return {"size": dict(size), "seconds": {name: asdict(t) for name, t in timings.items()}, "load": load, **more}


def ratio(record: Mapping, rival: str, ours: str = "ntkfast") -> float:
    """Median of the rival over median of ours."""
    return record["seconds"][rival]["median"] / record["seconds"][ours]["median"]
