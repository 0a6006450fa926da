"""The sides of a benchmark on a GPU: each is verified as it is added; what cannot run is left out, with the reason."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import measure
import torch
from cuda_graph import Captured
from setting import Device

ROUNDS, REPEATS = 7, 105
IN_GRAPH = ", CUDA graph"

Call = Callable[[], object]


class Sides:
    """Sides by name, ours first.

    Args:
        device: where they compute.
        check: (name, result) → relative error; it raises where that is too large.
    """

    def __init__(self, device: Device, check: Callable[[str, object], float]) -> None:
        self.device, self.check = torch.device(device), check
        self.calls: dict[str, Call] = {}
        self.errors: dict[str, float] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, call: Call) -> None:
        """Verify a side and keep it."""
        self.errors[name] = self.check(name, call())
        self.calls[name] = call

    def attempt(self, name: str, make: Callable[[], Call]) -> bool:
        """Add what ``make`` returns; where making, calling or verifying it fails, keep the reason."""
        try:
            self.add(name, make())
            return True
        except Exception as error:  # whatever a compiler or a capture may raise
            self.missing[name] = _reason(error)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def graph(self, name: str, call: Call) -> None:
        """Add a side once more, captured in a CUDA graph."""
        if self.device.type == "cuda":
            self.attempt(name + IN_GRAPH, lambda: Captured(call))
        else:
            self.missing[name + IN_GRAPH] = f"expected a CUDA device for a CUDA graph, got {self.device}"

    def record(self, size: Mapping[str, object], rounds: int = ROUNDS, repeats: int = REPEATS, **more: object) -> dict:
        """Time all sides in turn; seconds, errors, peak memory and what is missing, ready for JSON."""
        peaks = {
            name: measure.peak_bytes(call, self.device)
            for name, call in self.calls.items()
            if not name.endswith(IN_GRAPH)  # a graph holds its memory from its capture on
        }
        timings = measure.in_turn(self.calls, rounds, repeats, self.device)
        return measure.comparison(
            size, timings, errors=self.errors, missing=self.missing, peak_bytes=peaks, device=str(self.device), **more
        )


def _reason(error: Exception) -> str:
    """The kind of an error and the first lines of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3]) or 'no message'}"[:300]
